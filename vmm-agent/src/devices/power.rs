//! Power off, and the three ways in which a PC guest resets itself. None of them is a crash.
use super::{IoOutcome, PioDevice, Signal, get, put};

/// PM1a control register (ACPI specification 4.8.3.2.1), at the port that QEMU's q35 machine uses.
pub const PM1A_CONTROL_PORT: u16 = 0x604;
/// Reset control register of PIIX3 and ICH chipsets (Intel 82371AB datasheet, 4.3), named in the FADT as reset register.
pub const RESET_PORT: u16 = 0xcf9;
/// First port of the keyboard controller (i8042); the second is [`KEYBOARD_COMMAND_PORT`].
pub const KEYBOARD_PORT: u16 = 0x60;
/// Command port of the keyboard controller.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;

/// SLP_EN: go to the sleep state in bits 12..10 now.
const SLEEP_ENABLE: u64 = 1 << 13;
/// SLP_TYP, three bits. Zero is S5 (soft off), as the tables of this machine will say.
const SLEEP_TYPE: u64 = 7 << 10;
/// SCI_EN: the machine is in ACPI mode for good.
const SCI_ENABLE: u64 = 1;
/// RCPU: reset when it goes to one.
const RESET_CPU: u64 = 1 << 2;
/// Command that pulses output line 0, which is wired to reset (8042 data sheet, command 0xf0 to 0xff).
const PULSE_RESET: u64 = 0xfe;

/// The PM1a control register.
#[derive(Debug, Default)]
pub struct PowerManagement {
    control: u64,
}

impl PioDevice for PowerManagement {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        if offset != 0 {
            return IoOutcome::BadAccess("PM1a control is read from its first port");
        }
        put(data, self.control | SCI_ENABLE)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        if offset != 0 || data.len() < 2 {
            return IoOutcome::BadAccess("PM1a control is written as a word");
        }
        let value = get(data);
        // SLP_EN reads as zero.
        self.control = value & 0xffff & !SLEEP_ENABLE;
        if value & SLEEP_ENABLE != 0 && value & SLEEP_TYPE == 0 {
            return IoOutcome::Signal(Signal::PowerOff);
        }
        IoOutcome::Done
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
        assert_eq!(
            power.write(0, &0x2000_u16.to_le_bytes()),
            IoOutcome::Signal(Signal::PowerOff)
        );
        assert_eq!(
            power.write(0, &0x2400_u16.to_le_bytes()),
            IoOutcome::Done,
            "another sleep state"
        );
        assert_eq!(
            power.write(0, &0x0000_u16.to_le_bytes()),
            IoOutcome::Done,
            "no sleep enable"
        );
        let mut value = [0; 2];
        assert_eq!(power.read(0, &mut value), IoOutcome::Done);
        assert_eq!(value, [1, 0]);
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
