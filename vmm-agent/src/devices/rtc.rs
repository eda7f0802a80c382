//! The real-time clock of a PC with its memory (Motorola MC146818A): tells the host's time in UTC, never interrupts.
use super::{IoOutcome, PioDevice, get, put};

/// Index port; the data port follows.
pub const RTC_PORT: u16 = 0x70;
/// Number of ports.
pub const RTC_PORTS: u16 = 2;

// Registers (MC146818A data sheet, address map).
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Where PC firmware keeps the century.
const CENTURY: u8 = 0x32;
/// Time base of 32768 Hz and a rate of 1024 Hz; no update in progress.
const A_DIVIDER: u8 = 0x26;
/// Hours from 0 to 23; values in binary-coded decimal.
const B_24_HOURS: u8 = 0x02;
/// Contents are valid.
const D_VALID: u8 = 0x80;
/// Index port: bit 7 switches NMIs off, which this machine does not follow.
const INDEX: u8 = 0x7f;

/// The clock with its 128 bytes.
#[derive(Debug)]
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
}

impl Default for Rtc {
    fn default() -> Self {
        Rtc {
            index: 0,
            memory: [0; 128],
        }
    }
}

impl Rtc {
    fn register(&self) -> u8 {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        match self.index {
            SECONDS => decimal(now.second().min(59).into()),
            MINUTES => decimal(now.minute().into()),
            HOURS => decimal(now.hour().into()),
            WEEKDAY => decimal(now.weekday().to_sunday_one_offset().into()),
            DAY => decimal(now.day().into()),
            MONTH => decimal(now.month().into()),
            YEAR => decimal(now.year().rem_euclid(100)),
            CENTURY => decimal(now.year().div_euclid(100)),
            REGISTER_A => A_DIVIDER,
            REGISTER_B => B_24_HOURS,
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            other => self.memory.get(usize::from(other)).copied().unwrap_or(0),
        }
    }
}

/// Two decimal digits, four bits each.
fn decimal(value: i16) -> u8 {
    u8::try_from(value / 10 % 10 * 16 + value % 10).unwrap_or(0)
}

impl PioDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match offset {
            0 => put(data, u64::from(self.index)),
            _ => put(data, u64::from(self.register())),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let value = u8::try_from(get(data) & 0xff).unwrap_or(0);
        if offset == 0 {
            self.index = value & INDEX;
        } else if let Some(byte) = self.memory.get_mut(usize::from(self.index)) {
            // The time cannot be set: reads never look here for it.
            *byte = value;
        }
        IoOutcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtc: &mut Rtc, index: u8) -> u8 {
        let mut data = [0];
        assert_eq!(rtc.write(0, &[index]), IoOutcome::Done);
        assert_eq!(rtc.read(1, &mut data), IoOutcome::Done);
        data[0]
    }

    #[test]
    fn the_clock_tells_the_hosts_date() {
        let mut rtc = Rtc::default();
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        let digits = |byte: u8| i16::from(byte >> 4) * 10 + i16::from(byte & 15);
        let year = digits(read(&mut rtc, CENTURY)) * 100 + digits(read(&mut rtc, YEAR));
        assert!((year - today.year()).abs() <= 1, "{year}");
        assert!((1..=12).contains(&digits(read(&mut rtc, MONTH))));
        assert!((0..60).contains(&digits(read(&mut rtc, SECONDS))));
        assert_eq!(
            (read(&mut rtc, REGISTER_A), read(&mut rtc, 0x80 | REGISTER_D)),
            (0x26, 0x80)
        );
    }

    #[test]
    fn memory_keeps_what_is_written_and_time_is_not_set() {
        let mut rtc = Rtc::default();
        assert_eq!(rtc.write(0, &[0x0f]), IoOutcome::Done);
        assert_eq!(rtc.write(1, &[0x0a]), IoOutcome::Done);
        assert_eq!(read(&mut rtc, 0x0f), 0x0a);
        assert_eq!(rtc.write(0, &[CENTURY]), IoOutcome::Done);
        assert_eq!(rtc.write(1, &[0x19]), IoOutcome::Done);
        assert_eq!(read(&mut rtc, CENTURY), 0x20);
    }
}
