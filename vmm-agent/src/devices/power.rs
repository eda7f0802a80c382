//! Power management, power off, and the three ways in which a PC guest resets itself. None of them is a crash.
use std::time::Instant;

use super::{IoOutcome, PioDevice, Signal, get, put};

/// PM1a event registers (ACPI specification 4.8.3.1): status and enable, one word each. Power management lies at the ports
/// that QEMU's q35 machine uses.
pub const PM1A_EVENT_PORT: u16 = 0x600;
/// PM1a control register (ACPI specification 4.8.3.2.1).
pub const PM1A_CONTROL_PORT: u16 = 0x604;
/// Power management timer (ACPI specification 4.8.3.3).
pub const PM_TIMER_PORT: u16 = 0x608;
/// Number of ports from [`PM1A_EVENT_PORT`] on.
pub const POWER_PORTS: u16 = 12;
/// What the FADT tells guests to write into the reset register.
pub const RESET_VALUE: u8 = 0x06;
/// Reset control register of PIIX3 and ICH chipsets (Intel 82371AB datasheet, 4.3), named in the FADT as reset register.
pub const RESET_PORT: u16 = 0xcf9;
/// First port of the keyboard controller (i8042); the second is [`KEYBOARD_COMMAND_PORT`].
pub const KEYBOARD_PORT: u16 = 0x60;
/// Command port of the keyboard controller.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;

/// SLP_EN: go to the sleep state in bits 12..10 now.
const SLEEP_ENABLE: u64 = 1 << 13;
/// SLP_TYP, three bits. Zero is S5 (soft off), as `_S5_` in the DSDT says.
const SLEEP_TYPE: u64 = 7 << 10;
/// SCI_EN: the machine is in ACPI mode for good.
const SCI_ENABLE: u64 = 1;
/// RCPU: reset when it goes to one.
const RESET_CPU: u64 = 1 << 2;
/// Frequency of the power management timer in Hz.
const PM_TIMER_HZ: u128 = 3_579_545;
/// Command that pulses output line 0, which is wired to reset (8042 data sheet, command 0xf0 to 0xff).
const PULSE_RESET: u64 = 0xfe;

/// The PM1a registers and the power management timer, from [`PM1A_EVENT_PORT`] on. Nothing ever raises an event.
#[derive(Debug)]
pub struct PowerManagement {
    enable: u64,
    control: u64,
    started: Instant,
}

impl Default for PowerManagement {
    fn default() -> Self {
        PowerManagement {
            enable: 0,
            control: 0,
            started: Instant::now(),
        }
    }
}

const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = (PM1A_CONTROL_PORT - PM1A_EVENT_PORT) as u64;
const TIMER: u64 = (PM_TIMER_PORT - PM1A_EVENT_PORT) as u64;

impl PowerManagement {
    /// The timer: 32 bits that go round every 20 minutes.
    fn ticks(&self) -> u64 {
        let ticks = self.started.elapsed().as_nanos() * PM_TIMER_HZ / 1_000_000_000;
        u64::try_from(ticks & 0xffff_ffff).unwrap_or(0)
    }
}

impl PioDevice for PowerManagement {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match offset {
            // A double word takes status and enable at once.
            STATUS => put(data, self.enable << 16),
            ENABLE => put(data, self.enable),
            CONTROL => put(data, self.control | SCI_ENABLE),
            TIMER => put(data, self.ticks()),
            _ => IoOutcome::BadAccess("power registers are read from their first port"),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let value = get(data);
        match (offset, data.len()) {
            // Writing ones clears status bits, of which none is ever set.
            (STATUS, 2) => IoOutcome::Done,
            (ENABLE, 2) => {
                self.enable = value;
                IoOutcome::Done
            }
            (CONTROL, 2..) => {
                // SLP_EN reads as zero.
                self.control = value & 0xffff & !SLEEP_ENABLE;
                if value & SLEEP_ENABLE != 0 && value & SLEEP_TYPE == 0 {
                    return IoOutcome::Signal(Signal::PowerOff);
                }
                IoOutcome::Done
            }
            _ => IoOutcome::BadAccess("power registers are written as words"),
        }
    }
}

/// The reset control register.
#[derive(Debug, Default)]
pub struct ResetControl {
    value: u64,
}

impl PioDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> IoOutcome {
        put(data, self.value)
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> IoOutcome {
        if data.len() != 1 {
            return IoOutcome::BadAccess("the reset control register is one byte wide");
        }
        let value = get(data);
        self.value = value & 0x0a;
        if value & RESET_CPU != 0 {
            IoOutcome::Signal(Signal::Reset)
        } else {
            IoOutcome::Done
        }
    }
}

/// As much of a keyboard controller as guests need to find it idle and to reset by it.
#[derive(Debug, Default)]
pub struct Keyboard;

impl PioDevice for Keyboard {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> IoOutcome {
        put(data, 0)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let command = offset == u64::from(KEYBOARD_COMMAND_PORT - KEYBOARD_PORT);
        if command && get(data) == PULSE_RESET {
            IoOutcome::Signal(Signal::Reset)
        } else {
            IoOutcome::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_off_needs_sleep_enable_and_type_zero() {
        let mut power = PowerManagement::default();
        let mut control = |value: u16| power.write(CONTROL, &value.to_le_bytes());
        assert_eq!(control(0x2000), IoOutcome::Signal(Signal::PowerOff));
        assert_eq!(control(0x2400), IoOutcome::Done, "another sleep state");
        assert_eq!(control(0x0000), IoOutcome::Done, "no sleep enable");
        let mut value = [0; 2];
        assert_eq!(power.read(CONTROL, &mut value), IoOutcome::Done);
        assert_eq!(value, [1, 0]);
    }

    #[test]
    fn events_can_be_enabled_and_never_happen() {
        let mut power = PowerManagement::default();
        assert_eq!(power.write(STATUS, &[0xff, 0xff]), IoOutcome::Done);
        assert_eq!(power.write(ENABLE, &[0x20, 0x01]), IoOutcome::Done);
        let mut both = [0; 4];
        assert_eq!(power.read(STATUS, &mut both), IoOutcome::Done);
        assert_eq!(both, [0, 0, 0x20, 0x01]);
        assert!(matches!(power.write(TIMER, &[0; 4]), IoOutcome::BadAccess(_)));
    }

    #[test]
    fn the_timer_runs() {
        let mut power = PowerManagement::default();
        let mut ticks = [0; 4];
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(power.read(TIMER, &mut ticks), IoOutcome::Done);
        assert!(u32::from_le_bytes(ticks) >= 7000, "{ticks:?}");
    }

    #[test]
    fn the_reset_register_resets_by_bit_two_only() {
        let mut reset = ResetControl::default();
        assert_eq!(reset.write(0, &[0x02]), IoOutcome::Done);
        assert_eq!(reset.write(0, &[0x06]), IoOutcome::Signal(Signal::Reset));
        assert!(matches!(reset.write(0, &[6, 0]), IoOutcome::BadAccess(_)));
    }

    #[test]
    fn the_keyboard_controller_resets_by_its_command_port_only() {
        assert_eq!(Keyboard.write(4, &[0xfe]), IoOutcome::Signal(Signal::Reset));
        assert_eq!(Keyboard.write(0, &[0xfe]), IoOutcome::Done);
        assert_eq!(Keyboard.write(4, &[0xd1]), IoOutcome::Done);
    }
}
