//! The common configuration structure (4.1.4.3): registers by which a driver negotiates and sets queues up.
use super::queue::QueueSetup;

/// Bytes of the structure, with the fields that later revisions appended.
pub const COMMON_LEN: u64 = 0x40;

/// Offset of the device status.
pub const STATUS_AT: u64 = 0x14;

/// Device status bits (2.1).
pub mod status {
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed upon.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 64;
}

/// What the driver wrote so far.
#[derive(Debug)]
pub struct Common {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
}

/// The registers of one queue.
#[derive(Clone, Copy, Debug)]
struct QueueRegisters {
    size_max: u16,
    setup: QueueSetup,
    enabled: bool,
}

/// What a write means beyond the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The device is to be reset.
    Reset,
    /// The driver is ready: the queues are to be served.
    Start,
    /// A queue was enabled.
    Enable(u16, QueueSetup),
    /// The vector of configuration changes was chosen.
    ConfigVector(u16),
    /// The vector of a queue was chosen.
    QueueVector(u16, u16),
}

impl Common {
    /// Registers after power-on, of a device that offers these features and queues of at most these sizes.
    #[must_use]
    pub fn new(offered: u64, queue_sizes: &[u16]) -> Common {
        let registers = |size_max: &u16| QueueRegisters {
            size_max: *size_max,
            setup: QueueSetup {
                size: *size_max,
                ..QueueSetup::default()
            },
            enabled: false,
        };
        Common {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(registers).collect(),
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.size_max).collect();
        *self = Common::new(self.offered, &sizes);
    }

    /// The device status.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Tells the driver that only a reset helps.
    pub fn need_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
    }

    /// The features that both sides agreed upon.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.driver_features
    }

    /// The selected queue.
    #[must_use]
    pub fn queue_select(&self) -> u16 {
        self.queue_select
    }

    /// A register's value; `vectors` are those of configuration changes and of the selected queue.
    #[must_use]
    pub fn read(&self, offset: u64, len: usize, vectors: (u16, u16)) -> Option<u64> {
        let half = |value: u64, select: u32| match select {
            0 => value & 0xffff_ffff,
            1 => value >> 32,
            _ => 0,
        };
        let queue = self.queues.get(usize::from(self.queue_select));
        let setup = queue.map(|queue| queue.setup).unwrap_or_default();
        let value = match (offset, len) {
            (0x00, 4) => self.device_feature_select.into(),
            (0x04, 4) => half(self.offered, self.device_feature_select),
            (0x08, 4) => self.driver_feature_select.into(),
            (0x0c, 4) => half(self.driver_features, self.driver_feature_select),
            (0x10, 2) => vectors.0.into(),
            (0x12, 2) => u64::try_from(self.queues.len()).ok()?,
            (0x14, 1) => self.status.into(),
            // The configuration never changes by itself, so its generation stays.
            (0x15, 1) => 0,
            (0x16, 2) => self.queue_select.into(),
            (0x18, 2) => setup.size.into(),
            (0x1a, 2) => vectors.1.into(),
            (0x1c, 2) => queue.is_some_and(|queue| queue.enabled).into(),
            // Each queue has a notification address of its own.
            (0x1e, 2) => self.queue_select.into(),
            (0x20, 4 | 8) => setup.descriptors_gpa,
            (0x24, 4) => setup.descriptors_gpa >> 32,
            (0x28, 4 | 8) => setup.driver_gpa,
            (0x2c, 4) => setup.driver_gpa >> 32,
            (0x30, 4 | 8) => setup.device_gpa,
            (0x34, 4) => setup.device_gpa >> 32,
            (0x38..0x40, 2 | 4) => 0,
            _ => return None,
        };
        Some(value)
    }

    /// A write to a register; `None` if there is none of that width.
    pub fn write(&mut self, offset: u64, len: usize, value: u64) -> Option<Effect> {
        let word = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let short = u16::try_from(value & 0xffff).unwrap_or(0);
        match (offset, len) {
            (0x00, 4) => self.device_feature_select = word,
            (0x08, 4) => self.driver_feature_select = word,
            (0x0c, 4) => self.choose_features(word),
            (0x10, 2) => return Some(Effect::ConfigVector(short)),
            (0x14, 1) => return Some(self.set_status(value)),
            (0x16, 2) => self.queue_select = short,
            (0x18, 2) => self.set_up(|setup| setup.size = short),
            (0x1a, 2) => return Some(Effect::QueueVector(self.queue_select, short)),
            (0x1c, 2) => return Some(self.enable(short)),
            (0x20..0x38, 4) => self.set_address(offset, value, 0xffff_ffff),
            (0x20 | 0x28 | 0x30, 8) => self.set_address(offset, value, u64::MAX),
            // Read-only fields, and fields of features that are not offered.
            (0x04, 4) | (0x12 | 0x1e, 2) | (0x15, 1) | (0x38..0x40, 2 | 4) => {}
            _ => return None,
        }
        Some(Effect::None)
    }

    fn choose_features(&mut self, word: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let chosen = self.driver_features;
        self.driver_features = match self.driver_feature_select {
            0 => chosen & !0xffff_ffff | u64::from(word),
            1 => chosen & 0xffff_ffff | u64::from(word) << 32,
            _ => chosen,
        };
    }

    /// A status only grows, but for zero, which resets (2.1.2). FEATURES_OK takes only if the device can do with them.
    fn set_status(&mut self, value: u64) -> Effect {
        let value = u8::try_from(value & 0xff).unwrap_or(0);
        if value == 0 {
            return Effect::Reset;
        }
        let mut new = value & !self.status & !status::NEEDS_RESET;
        let agreed =
            self.driver_features & !self.offered == 0 && self.driver_features & super::device::F_VERSION_1 != 0;
        if !agreed {
            new &= !status::FEATURES_OK;
        }
        self.status |= new;
        let ready = status::DRIVER_OK | status::FEATURES_OK;
        if new & status::DRIVER_OK != 0 && self.status & ready == ready {
            Effect::Start
        } else {
            Effect::None
        }
    }

    /// Changes the selected queue, unless it is in use.
    fn set_up(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select))
            && !queue.enabled
        {
            change(&mut queue.setup);
        }
    }

    fn set_address(&mut self, offset: u64, value: u64, mask: u64) {
        let shift = 8 * (offset % 8);
        let (value, mask) = ((value & mask) << shift, mask << shift);
        self.set_up(|setup| {
            let address = match offset {
                0x20..0x28 => &mut setup.descriptors_gpa,
                0x28..0x30 => &mut setup.driver_gpa,
                _ => &mut setup.device_gpa,
            };
            *address = *address & !mask | value;
        });
    }

    fn enable(&mut self, value: u16) -> Effect {
        match self.queues.get_mut(usize::from(self.queue_select)) {
            // A driver must not write zero (4.1.4.3.2).
            Some(queue) if value == 1 && !queue.enabled => {
                queue.enabled = true;
                Effect::Enable(self.queue_select, queue.setup)
            }
            _ => Effect::None,
        }
    }
}
