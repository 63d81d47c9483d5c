//! Instructions of the kernel's virtual machine, as far as they are needed here, and jumps by name.
//!
//! A program is a list of [`Line`]s. Semantics and encoding: RFC 9669.

// Classes, sources and operations (`linux/bpf.h`, `linux/bpf_common.h`) that libc has no names for.
const LOAD: u8 = 0x61;
const STORE_VALUE: u8 = 0x62;
const STORE: u8 = 0x63;
const SIZE: u8 = 0x18;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP32: u8 = 0x06;
const BY_REGISTER: u8 = 0x08;
const ADD: u8 = 0x00;
const AND: u8 = 0x50;
const RIGHT_SHIFT: u8 = 0x70;
const XOR: u8 = 0xa0;
const MOVE: u8 = 0xb0;
const TO_BIG_ENDIAN: u8 = 0xdc;
const LOAD_MAP: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    /// What a function answers, and the program.
    R0 = 0,
    /// The first argument, and what the program is given.
    R1,
    /// The second argument.
    R2,
    /// The third argument.
    R3,
    /// The fourth argument.
    R4,
    /// The fifth argument.
    R5,
    /// Kept by functions.
    R6,
    /// Kept by functions.
    R7,
    /// The end of the stack; cannot be written to.
    Frame = 10,
}

/// How much is loaded or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// Four bytes.
    Word = 0x00,
    /// Two bytes.
    Half = 0x08,
    /// One byte.
    Byte = 0x10,
}

/// When to jump. Numbers are compared without a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// If they are equal.
    Equal = 0x10,
    /// If the register is greater.
    Greater = 0x20,
    /// If they are not equal.
    Different = 0x50,
    /// If the register is less.
    Less = 0xa0,
}

/// A function of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// `bpf_map_lookup_elem(map, key)`.
    LookUp = 1,
    /// `bpf_map_update_elem(map, key, value, flags)`.
    Update = 2,
    /// `bpf_skb_store_bytes(context, offset, from, length, flags)`.
    StoreBytes = 9,
    /// `bpf_skb_load_bytes(context, offset, to, length)`.
    LoadBytes = 26,
    /// `bpf_skb_adjust_room(context, by, mode, flags)`.
    AdjustRoom = 50,
}

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    destination: Register,
    source: Register,
    offset: i16,
    value: i32,
}

/// A line of a program whose places are named by `L`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<L> {
    /// An instruction.
    Do(Instruction),
    /// A jump to a place further on.
    Jump(Instruction, L),
    /// A place.
    Place(L),
}

impl Instruction {
    const fn new(code: u8, destination: Register) -> Self {
        Self {
            code,
            destination,
            source: Register::R0,
            offset: 0,
            value: 0,
        }
    }

    /// As the kernel reads it.
    fn bytes(self, offset: i16) -> [u8; 8] {
        let (destination, source) = (self.destination as u8, self.source as u8);
        // Two bit fields, which the machine's order of bytes orders as well.
        let registers = if cfg!(target_endian = "little") {
            (source << 4) | destination
        } else {
            (destination << 4) | source
        };
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        [self.code, registers, o0, o1, v0, v1, v2, v3]
    }
}

/// `to = the number at base + offset`.
pub(super) const fn load<L>(width: Width, to: Register, base: Register, offset: i16) -> Line<L> {
    let mut instruction = Instruction::new((LOAD & !SIZE) | width as u8, to);
    instruction.source = base;
    instruction.offset = offset;
    Line::Do(instruction)
}

/// `the number at base + offset = from`.
pub(super) const fn store<L>(width: Width, base: Register, offset: i16, from: Register) -> Line<L> {
    let mut instruction = Instruction::new((STORE & !SIZE) | width as u8, base);
    instruction.source = from;
    instruction.offset = offset;
    Line::Do(instruction)
}

/// `the number at base + offset = value`.
pub(super) const fn store_value<L>(
    width: Width,
    base: Register,
    offset: i16,
    value: i32,
) -> Line<L> {
    let mut instruction = Instruction::new((STORE_VALUE & !SIZE) | width as u8, base);
    instruction.offset = offset;
    instruction.value = value;
    Line::Do(instruction)
}

const fn with_value<L>(operation: u8, to: Register, value: i32) -> Line<L> {
    let mut instruction = Instruction::new(ALU64 | operation, to);
    instruction.value = value;
    Line::Do(instruction)
}

const fn with_register<L>(operation: u8, to: Register, from: Register) -> Line<L> {
    let mut instruction = Instruction::new(ALU64 | BY_REGISTER | operation, to);
    instruction.source = from;
    Line::Do(instruction)
}

/// `to = value`, with its sign.
pub(super) const fn set<L>(to: Register, value: i32) -> Line<L> {
    with_value(MOVE, to, value)
}

/// `to = from`.
pub(super) const fn copy<L>(to: Register, from: Register) -> Line<L> {
    with_register(MOVE, to, from)
}

/// `to += value`.
pub(super) const fn add<L>(to: Register, value: i32) -> Line<L> {
    with_value(ADD, to, value)
}

/// `to += from`.
pub(super) const fn add_register<L>(to: Register, from: Register) -> Line<L> {
    with_register(ADD, to, from)
}

/// `to &= value`.
pub(super) const fn and<L>(to: Register, value: i32) -> Line<L> {
    with_value(AND, to, value)
}

/// `to ^= value`.
pub(super) const fn xor<L>(to: Register, value: i32) -> Line<L> {
    with_value(XOR, to, value)
}

/// `to >>= bits`.
pub(super) const fn shift_right<L>(to: Register, bits: i32) -> Line<L> {
    with_value(RIGHT_SHIFT, to, bits)
}

/// `to = the low half of to, from this machine's order of bytes into the network's, or back`.
pub(super) const fn network_order<L>(to: Register) -> Line<L> {
    let mut instruction = Instruction::new(TO_BIG_ENDIAN, to);
    instruction.value = 16;
    Line::Do(instruction)
}

/// Goes on at a place if the low word of a register compares to a value so.
pub(super) const fn jump_if<L>(register: Register, when: When, value: i32, place: L) -> Line<L> {
    let mut instruction = Instruction::new(JUMP32 | when as u8, register);
    instruction.value = value;
    Line::Jump(instruction, place)
}

/// Goes on at a place if a pointer leads nowhere.
pub(super) const fn jump_if_null<L>(register: Register, place: L) -> Line<L> {
    Line::Jump(Instruction::new(JUMP | When::Equal as u8, register), place)
}

/// `to = the map that a descriptor of this process is of`; an instruction of double length.
pub(super) const fn load_map<L>(to: Register, descriptor: i32) -> [Line<L>; 2] {
    let mut first = Instruction::new(LOAD_MAP, to);
    // BPF_PSEUDO_MAP_FD.
    first.source = Register::R1;
    first.value = descriptor;
    [Line::Do(first), Line::Do(Instruction::new(0, Register::R0))]
}

/// Goes on at a place if a register compares to another so.
pub(super) const fn jump_if_register<L>(
    register: Register,
    when: When,
    other: Register,
    place: L,
) -> Line<L> {
    let mut instruction = Instruction::new(JUMP | BY_REGISTER | when as u8, register);
    instruction.source = other;
    Line::Jump(instruction, place)
}

/// Calls a function of the kernel. R1 to R5 are lost.
pub(super) const fn call<L>(function: Function) -> Line<L> {
    let mut instruction = Instruction::new(CALL, Register::R0);
    instruction.value = function as i32;
    Line::Do(instruction)
}

/// Ends the program with R0.
pub(super) const fn exit<L>() -> Line<L> {
    Line::Do(Instruction::new(EXIT, Register::R0))
}

/// The program as the kernel reads it; `None` when a jump leads to no place, or backwards.
pub(super) fn assemble<L: PartialEq>(lines: &[Line<L>]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        match line {
            Line::Do(instruction) => bytes.extend(instruction.bytes(instruction.offset)),
            Line::Jump(instruction, place) => {
                let rest = lines.get(number + 1..)?;
                let found = rest
                    .iter()
                    .position(|line| matches!(line, Line::Place(it) if it == place))?;
                let between = rest.iter().take(found);
                let over = between.filter(|line| !matches!(line, Line::Place(_)));
                bytes.extend(instruction.bytes(i16::try_from(over.count()).ok()?));
            }
            Line::Place(_) => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_standard_says() {
        let lines: [Line<()>; 6] = [
            load(Width::Byte, Register::R2, Register::Frame, -40),
            store(Width::Half, Register::Frame, -38, Register::R7),
            network_order(Register::R7),
            add(Register::R7, -8),
            call(Function::AdjustRoom),
            exit(),
        ];
        let bytes = assemble(&lines).unwrap();
        if cfg!(target_endian = "little") {
            let expected: [[u8; 8]; 6] = [
                [0x71, 0xa2, 0xd8, 0xff, 0, 0, 0, 0],
                [0x6b, 0x7a, 0xda, 0xff, 0, 0, 0, 0],
                [0xdc, 0x07, 0, 0, 16, 0, 0, 0],
                [0x07, 0x07, 0, 0, 0xf8, 0xff, 0xff, 0xff],
                [0x85, 0, 0, 0, 50, 0, 0, 0],
                [0x95, 0, 0, 0, 0, 0, 0, 0],
            ];
            assert_eq!(bytes, expected.concat());
        }
    }

    #[test]
    fn a_jump_skips_instructions_and_not_places() {
        let jump = |place| jump_if(Register::R1, When::Equal, 0, place);
        let lines = [
            jump("end"),
            Line::Place("middle"),
            exit(),
            exit(),
            Line::Place("end"),
            exit(),
        ];
        let bytes = assemble(&lines).unwrap();
        assert_eq!(bytes.len(), 4 * 8);
        assert_eq!(bytes.get(2..4), Some(2_i16.to_ne_bytes().as_slice()));
        assert_eq!(assemble(&[exit(), jump("nowhere")]), None);
        assert_eq!(
            assemble(&[Line::Place("back"), exit(), jump("back")]),
            None,
            "backwards"
        );
    }
}
