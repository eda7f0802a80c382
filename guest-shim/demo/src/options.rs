//! The command line: words `name=value`, separated by spaces.
use guest_shim::boot::BootInfo;
use guest_shim::pattern::DEMO_FILL_GPA;

/// What the guest was told to do.
#[derive(Clone, Copy)]
pub struct Options {
    /// What to do after the start.
    pub mode: &'static str,
    /// Memory to fill, in MiB.
    pub touch_mib: u64,
    /// First guest-physical address to fill, in MiB.
    pub touch_from_mib: u64,
    /// Timer ticks (10 ms) before it is done.
    pub delay_ticks: u64,
    /// Reach the shim and pvpanic through PCI instead of ports.
    pub pci: bool,
}

impl Options {
    /// Reads the command line of `info`.
    pub fn new(info: &BootInfo) -> Options {
        let mut options = Options {
            mode: "panic",
            touch_mib: 32,
            touch_from_mib: DEMO_FILL_GPA >> 20,
            delay_ticks: 20,
            pci: false,
        };
        for (name, value) in command_line(info)
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match name {
                "mode" => options.mode = value,
                "touch_mib" => options.touch_mib = value.parse().unwrap_or(options.touch_mib),
                "touch_from_mib" => options.touch_from_mib = value.parse().unwrap_or(options.touch_from_mib),
                "delay_ticks" => options.delay_ticks = value.parse().unwrap_or(options.delay_ticks),
                "devices" => options.pci = value == "pci",
                _ => {}
            }
        }
        options
    }
}

fn command_line(info: &BootInfo) -> &'static str {
    let len = usize::try_from(info.command_line_len).unwrap_or(0);
    let start = core::ptr::with_exposed_provenance(usize::try_from(info.command_line_gpa).unwrap_or(0));
    // SAFETY: the boot protocol puts that many bytes there, below this program's image, and nothing writes them.
    let bytes = unsafe { core::slice::from_raw_parts(start, len) };
    core::str::from_utf8(bytes).unwrap_or("")
}
