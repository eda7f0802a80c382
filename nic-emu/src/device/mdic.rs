//! MDIC and the PHY behind it: registers, auto-negotiation, and what decides the link (SDM chapter 13, MDIC; IEEE 802.3
//! clause 22).

use crate::bits::{index, low16};
use crate::limits::NEGOTIATION_NS;
use crate::spec::phy::{self, REGISTERS, bmcr, bmsr};
use crate::spec::registers::mdic;

/// The PHY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phy {
    /// Its registers; BMSR, ANLPAR and PSSR are computed when read.
    pub(super) registers: [u16; REGISTERS],
    /// Is the other side of the wire up?
    pub(super) cable: bool,
    /// Until when auto-negotiation runs.
    pub(super) negotiating_until_ns: Option<u64>,
    /// BMSR's link bit latched low.
    pub(super) link_lost: bool,
}

impl Phy {
    /// After power-on, negotiated with the other side.
    pub(super) fn new() -> Self {
        Self {
            registers: phy::RESET,
            cable: true,
            negotiating_until_ns: None,
            link_lost: false,
        }
    }

    /// Is the link up?
    pub(super) fn link(&self) -> bool {
        self.cable && self.negotiating_until_ns.is_none() && !self.control(bmcr::POWER_DOWN)
    }

    /// Does BMCR ask for loopback?
    pub(super) fn loopback(&self) -> bool {
        self.control(bmcr::LOOPBACK)
    }

    /// Back to reset values; negotiates anew.
    pub(super) fn reset(&mut self, now_ns: u64) {
        self.registers = phy::RESET;
        self.negotiate(now_ns);
    }

    /// The other side came or went.
    pub(super) fn set_cable(&mut self, up: bool) {
        self.cable = up;
        self.link_lost |= !up;
    }

    /// Ends a negotiation that is due.
    pub(super) fn handle_timeout(&mut self, now_ns: u64) {
        if self.negotiating_until_ns.is_some_and(|until| until <= now_ns) {
            self.negotiating_until_ns = None;
        }
    }

    /// Runs the operation written to MDIC; returns what MDIC reads afterwards.
    pub(super) fn execute(&mut self, now_ns: u64, command: u32) -> u32 {
        let kept = command & !(mdic::READY | mdic::ERROR);
        let [register, ..] = ((command >> mdic::REGISTER_SHIFT) & 0x1F).to_le_bytes();
        let here = (command >> mdic::ADDRESS_SHIFT) & 0x1F == phy::ADDRESS;
        match (here, command & mdic::WRITE != 0, command & mdic::READ != 0) {
            (true, true, false) => {
                self.write(now_ns, register, low16(command));
                kept | mdic::READY
            }
            (true, false, true) => (kept & !0xFFFF) | u32::from(self.read(register)) | mdic::READY,
            _ => kept | mdic::READY | mdic::ERROR,
        }
    }

    /// Reads a register; BMSR's latched link bit becomes live again.
    fn read(&mut self, register: u8) -> u16 {
        let negotiated = self.cable && self.negotiating_until_ns.is_none();
        let stored = self.registers.get(usize::from(register)).copied().unwrap_or(0);
        match register {
            phy::BMSR => {
                let shown = self.link() && !self.link_lost;
                self.link_lost = false;
                let flag = |on: bool, bit: u16| if on { bit } else { 0 };
                (stored & !(bmsr::LINK | bmsr::NEGOTIATED))
                    | flag(shown, bmsr::LINK)
                    | flag(negotiated, bmsr::NEGOTIATED)
            }
            phy::ANLPAR if !negotiated => stored & !ANLPAR_ACKNOWLEDGED,
            phy::PSSR if !self.link() => stored & !phy::PSSR_LINK,
            _ => stored,
        }
    }

    fn write(&mut self, now_ns: u64, register: u8, value: u16) {
        if register == phy::BMCR {
            self.write_control(now_ns, value);
        } else if !phy::read_only(register)
            && let Some(stored) = self.registers.get_mut(index(u32::from(register)))
        {
            *stored = value;
        }
    }

    fn write_control(&mut self, now_ns: u64, value: u16) {
        let was_down = self.control(bmcr::POWER_DOWN);
        if value & bmcr::RESET != 0 {
            self.registers = phy::RESET;
        }
        let [stored, ..] = &mut self.registers;
        *stored = value & !(bmcr::RESET | bmcr::RESTART);
        let woken = was_down && value & bmcr::POWER_DOWN == 0;
        if value & (bmcr::RESET | bmcr::RESTART) != 0 || woken {
            self.negotiate(now_ns);
        }
        if value & bmcr::POWER_DOWN != 0 {
            self.link_lost = true;
        }
    }

    fn negotiate(&mut self, now_ns: u64) {
        self.link_lost = true;
        self.negotiating_until_ns = Some(now_ns.saturating_add(NEGOTIATION_NS));
    }

    fn control(&self, bit: u16) -> bool {
        let [control, ..] = self.registers;
        control & bit != 0
    }
}

/// Link partner's "acknowledge" bit.
const ANLPAR_ACKNOWLEDGED: u16 = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(phy: &mut Phy, register: u8) -> u32 {
        phy.execute(
            0,
            mdic::READ | phy::ADDRESS << mdic::ADDRESS_SHIFT | u32::from(register) << mdic::REGISTER_SHIFT,
        )
    }

    fn write(phy: &mut Phy, register: u8, value: u16) {
        let to = phy::ADDRESS << mdic::ADDRESS_SHIFT | u32::from(register) << mdic::REGISTER_SHIFT;
        phy.execute(0, mdic::WRITE | to | u32::from(value));
    }

    #[test]
    fn identifies_as_m88e1011_and_echoes_the_register_number() {
        let mut phy = Phy::new();
        assert_eq!(read(&mut phy, phy::ID1) & 0xFFFF, 0x0141);
        let id2 = read(&mut phy, phy::ID2);
        assert_eq!(id2 & 0xFFF0, 0x0C20);
        assert_eq!(id2 >> mdic::REGISTER_SHIFT & 0x1F, u32::from(phy::ID2));
        assert_eq!(id2 & (mdic::READY | mdic::ERROR), mdic::READY);
        assert_eq!(read(&mut phy, phy::BMSR) & 0xFFFF, 0x796D);
    }

    #[test]
    fn wrong_address_reports_an_error() {
        let answer = Phy::new().execute(0, mdic::READ | 2 << mdic::ADDRESS_SHIFT);
        assert_eq!(answer & (mdic::READY | mdic::ERROR), mdic::READY | mdic::ERROR);
    }

    #[test]
    fn restart_takes_time_and_the_link_bit_latches_low() {
        let mut phy = Phy::new();
        write(&mut phy, phy::BMCR, 0x1340);
        assert!(!phy.link());
        assert_eq!(read(&mut phy, phy::BMCR) & 0xFFFF, 0x1140, "restart clears itself");
        phy.handle_timeout(NEGOTIATION_NS - 1);
        assert!(!phy.link());
        phy.handle_timeout(NEGOTIATION_NS);
        assert!(phy.link());
        assert_eq!(read(&mut phy, phy::BMSR) & 0xFFFF, 0x7969, "latched");
        assert_eq!(read(&mut phy, phy::BMSR) & 0xFFFF, 0x796D, "live");
    }

    #[test]
    fn power_down_drops_the_link_until_it_is_undone() {
        let mut phy = Phy::new();
        write(&mut phy, phy::BMCR, 0x1940);
        assert!(!phy.link());
        write(&mut phy, phy::BMCR, 0x1140);
        phy.handle_timeout(NEGOTIATION_NS);
        assert!(phy.link());
    }

    #[test]
    fn unknown_registers_are_storage_and_status_is_not() {
        let mut phy = Phy::new();
        write(&mut phy, 29, 0xBEEF);
        write(&mut phy, phy::ID1, 0);
        assert_eq!(read(&mut phy, 29) & 0xFFFF, 0xBEEF);
        assert_eq!(read(&mut phy, phy::ID1) & 0xFFFF, 0x0141);
    }
}
