//! The messages of a dump, byte for byte, and what a parser does with anything else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::wire::{self, HEADER_LEN, Header, Kind, Seqno, WireError};
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn header(kind: Kind, seqno: u32, offset: u64, len: u32) -> Header {
    Header {
        kind,
        seqno: Seqno(seqno),
        offset,
        len,
        aux2: 0,
    }
}

#[test]
fn headers_stand_on_the_wire_as_stock_clients_write_them() {
    let vectors = [
        (
            header(Kind::Herald, 1, 0, 0),
            "00000001 00000001 0000000000000000 00000000 00000000",
        ),
        (
            header(Kind::Herald, 1, 0, 10),
            "00000001 00000001 0000000000000000 0000000a 00000000",
        ),
        (
            header(Kind::Vmcore, 2, 0, 1448),
            "00000003 00000002 0000000000000000 000005a8 00000000",
        ),
        (
            header(Kind::Vmcore, 47, 65160, 376),
            "00000003 0000002f 000000000000fe88 00000178 00000000",
        ),
        (
            header(Kind::Vmcore, 48, 65536, 1448),
            "00000003 00000030 0000000000010000 000005a8 00000000",
        ),
        (
            header(Kind::Vmcore, 0x0030_0000, 0x1_2345_6000, 1448),
            "00000003 00300000 0000000123456000 000005a8 00000000",
        ),
        (
            header(Kind::Key, 2, 0, 1448),
            "00000005 00000002 0000000000000000 000005a8 00000000",
        ),
        (
            header(Kind::Key, 3, 1448, 1448),
            "00000005 00000003 00000000000005a8 000005a8 00000000",
        ),
        (
            header(Kind::Key, 4, 2896, 1200),
            "00000005 00000004 0000000000000b50 000004b0 00000000",
        ),
        (
            header(Kind::KernelHeader, 1000, 0, 512),
            "00000004 000003e8 0000000000000000 00000200 00000000",
        ),
        (
            header(Kind::Finished, 1001, 0, 0),
            "00000002 000003e9 0000000000000000 00000000 00000000",
        ),
    ];
    for (header, hex) in vectors {
        let mut datagram = bytes(hex);
        assert_eq!(header.encode().as_slice(), datagram, "{header:?}");
        datagram.resize(HEADER_LEN + usize::try_from(header.len).unwrap(), 0xa5);
        let (parsed, payload) = Header::parse(&datagram).unwrap();
        assert_eq!((parsed, payload.len()), (header, usize::try_from(header.len).unwrap()));
    }
}

#[test]
fn a_herald_may_carry_a_path_and_its_nul() {
    let datagram = bytes("00000001 00000001 0000000000000000 0000000a 00000000 6c61622f7261636b3100");
    let (parsed, payload) = Header::parse(&datagram).unwrap();
    assert_eq!((parsed.kind, payload), (Kind::Herald, b"lab/rack1\0".as_slice()));
}

#[test]
fn the_last_field_of_old_clients_is_ignored() {
    let datagram = bytes("00000002 000003e9 0000000000000000 00000000 deadbeef");
    assert_eq!(Header::parse(&datagram).unwrap().0.aux2, 0xdead_beef);
}

#[test]
fn an_acknowledgement_is_four_bytes_and_no_other_number() {
    assert_eq!(wire::encode_ack(Seqno(1)), [0, 0, 0, 1]);
    assert_eq!(wire::encode_ack(Seqno(1001)), [0, 0, 3, 0xe9]);
    assert_eq!(wire::parse_ack(&[0, 0, 3, 0xe9]), Ok(Seqno(1001)));
    for len_bytes in [0, 3, 5, 24] {
        assert_eq!(
            wire::parse_ack(&vec![0; len_bytes]),
            Err(WireError::NotAnAck { len_bytes })
        );
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let short = bytes("00000003 00000005 0000000000000000 000005a8 000000");
    assert_eq!(Header::parse(&short), Err(WireError::TooShort { len_bytes: 23 }));
    let unknown = bytes("00000006 00000005 0000000000000000 00000000 00000000");
    assert_eq!(Header::parse(&unknown), Err(WireError::UnknownKind { number: 6 }));
    let mut lies = bytes("00000003 00000005 0000000000000000 000005a8 00000000");
    lies.resize(124, 0);
    assert_eq!(
        Header::parse(&lies),
        Err(WireError::LengthLies { said: 1448, came: 100 })
    );
}

proptest! {
    #[test]
    fn every_header_survives_the_wire(kind in 1u32..=5, seqno: u32, offset: u64, aux2: u32, payload: Vec<u8>) {
        let kinds = [Kind::Herald, Kind::Finished, Kind::Vmcore, Kind::KernelHeader, Kind::Key];
        let kind = *kinds.iter().find(|k| k.number() == kind).unwrap();
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header { kind, seqno: Seqno(seqno), offset, len, aux2 };
        let datagram = [header.encode().as_slice(), &payload].concat();
        prop_assert_eq!(Header::parse(&datagram), Ok((header, payload.as_slice())));
    }

    #[test]
    fn no_datagram_panics_and_what_parses_is_what_it_was(datagram: Vec<u8>) {
        if let Ok((header, payload)) = Header::parse(&datagram) {
            prop_assert_eq!([header.encode().as_slice(), payload].concat(), datagram);
        }
    }
}
