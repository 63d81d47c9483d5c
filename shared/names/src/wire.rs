//! A query as it came, and the answer as it goes.

mod records;

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

use crate::directory::Directory;
use crate::resolve::View;
pub(crate) use records::{Told, host_part, tell};

/// The largest UDP message that everybody takes (RFC 1035).
const SMALLEST_LIMIT: u16 = 512;
/// The largest UDP message that we send and take, however much the asker would. It does not leave the host.
const LARGEST_LIMIT: u16 = 4096;
/// More additional records than this have no place in a query.
const MOST_ADDITIONAL: u16 = 8;
/// The option of extended errors, and the error "Stale Answer" (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
const STALE_ANSWER: [u8; 2] = [0, 3];
/// What we say of EDNS has at most so many bytes: its record, and one option.
const OPTIONS_LENGTH: u16 = 11 + 6;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer may have to be cut.
    Udp,
    /// On a connection.
    Tcp,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// We answer.
    Answer(Answer),
    /// Docker's resolver answers.
    PassOn,
    /// Nobody answers: it is no query.
    Drop,
}

/// Our answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub bytes: Vec<u8>,
    /// What it says.
    pub outcome: Outcome,
    /// Whether it was cut to fit.
    pub truncated: bool,
    /// Whether it may be out of date.
    pub stale: bool,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Records.
    Records,
    /// The name is there, and has no such records.
    NoData,
    /// There is no such name.
    NoSuchName,
    /// The query is not one.
    Malformed,
}

/// Answers a query, if it is ours to answer. The seed decides the order of the records.
#[must_use]
pub fn answer(
    directory: &Directory,
    view: &View,
    query: &[u8],
    transport: Transport,
    seed: u64,
) -> Reply {
    let mut decoder = BinDecoder::new(query);
    let Ok(header) = Header::read(&mut decoder) else {
        return Reply::Drop;
    };
    if header.metadata.message_type == MessageType::Response {
        return Reply::Drop;
    }
    if header.metadata.op_code != OpCode::Query {
        return Reply::PassOn;
    }
    let Some((question, edns)) = read(&mut decoder, &header) else {
        return malformed(&header.metadata);
    };
    if edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        // Docker's resolver knows what its versions are.
        return Reply::PassOn;
    }
    if !matches!(question.query_class, DNSClass::IN | DNSClass::ANY) {
        return Reply::PassOn;
    }
    let stale = directory.stale_since().is_some();
    match tell(directory, view, &question, seed) {
        Told::PassOn => Reply::PassOn,
        Told::Records(answers, additionals) => {
            let mut message = response(&header.metadata, question, edns.as_ref(), stale);
            let outcome = if answers.is_empty() {
                Outcome::NoData
            } else {
                Outcome::Records
            };
            message.answers = answers;
            message.additionals = additionals;
            write(&message, outcome, limit(transport, edns.as_ref()), stale)
        }
        Told::NoSuchName => {
            let mut message = response(&header.metadata, question, edns.as_ref(), stale);
            message.metadata.response_code = ResponseCode::NXDomain;
            let limit = limit(transport, edns.as_ref());
            write(&message, Outcome::NoSuchName, limit, stale)
        }
    }
}

/// The answer "try again" (SERVFAIL) to a query that cannot be served now; `None` when it is no query.
#[must_use]
pub fn refusal(query: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = BinDecoder::new(query);
    let header = Header::read(&mut decoder).ok()?;
    if header.metadata.message_type == MessageType::Response {
        return None;
    }
    let mut message = Message::response(header.metadata.id, header.metadata.op_code);
    message.metadata.recursion_desired = header.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::ServFail;
    if let Some((question, _)) = read(&mut decoder, &header) {
        message.add_query(question);
    }
    message.to_vec().ok()
}

/// The question, and what the asker says of itself. The counts are looked at before anything is reserved for them.
fn read(decoder: &mut BinDecoder<'_>, header: &Header) -> Option<(Query, Option<Edns>)> {
    let counts = &header.counts;
    if (counts.queries, counts.answers, counts.authorities) != (1, 0, 0)
        || counts.additionals > MOST_ADDITIONAL
    {
        return None;
    }
    let question = Query::read(decoder).ok()?;
    let additionals = usize::from(counts.additionals);
    let records = Message::read_records(decoder, additionals, true, header.metadata.op_code);
    let (_, edns, _) = records.ok()?;
    Some((question, edns))
}

fn limit(transport: Transport, edns: Option<&Edns>) -> u16 {
    match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => SMALLEST_LIMIT,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(SMALLEST_LIMIT, LARGEST_LIMIT),
    }
}

fn response(query: &Metadata, question: Query, edns: Option<&Edns>, stale: bool) -> Message {
    let mut message = Message::response(query.id, query.op_code);
    message.metadata.authoritative = true;
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = query.checking_disabled;
    // The question goes back as it came, letter by letter: some askers know their own by its case.
    message.add_query(question);
    if edns.is_some() {
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_LIMIT).set_version(0);
        if stale {
            let error = EdnsOption::Unknown(EXTENDED_ERROR, STALE_ANSWER.to_vec());
            own.options_mut().insert(error);
        }
        message.set_edns(own);
    }
    message
}

/// Writes a message; one that does not fit is cut, with the flag that says so.
fn write(message: &Message, outcome: Outcome, limit: u16, stale: bool) -> Reply {
    let mut bytes = Vec::with_capacity(usize::from(SMALLEST_LIMIT));
    match encode(message, &mut bytes, limit) {
        Ok(truncated) => Reply::Answer(Answer {
            bytes,
            outcome,
            truncated,
            stale,
        }),
        // What cannot be written cannot be asked either; Docker's resolver may know better.
        Err(_) => Reply::PassOn,
    }
}

fn encode(message: &Message, bytes: &mut Vec<u8>, limit: u16) -> Result<bool, ProtoError> {
    let options = message.edns.as_ref().map(Record::from);
    // What the asker is told of EDNS has its place in the end, whatever is cut.
    let reserved = if options.is_some() { OPTIONS_LENGTH } else { 0 };
    let mut encoder = BinEncoder::new(bytes);
    encoder.set_max_size(limit.saturating_sub(reserved));
    let place = encoder.place::<Header>()?;
    let queries = encoder.emit_all(message.queries.iter())?;
    let own: Vec<Own<'_>> = message.answers.iter().map(Own).collect();
    let (answers, truncated) = emit(&mut encoder, &own)?;
    // What was not asked for may be left out without a word.
    let mut additionals = 0;
    if !truncated {
        (additionals, _) = emit(&mut encoder, &message.additionals)?;
    }
    encoder.set_max_size(limit);
    additionals += encoder.emit_all(options.iter())?;
    let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let mut metadata = message.metadata;
    metadata.truncation = truncated;
    let header = Header {
        metadata,
        counts: HeaderCounts {
            queries: count(queries),
            answers: count(answers),
            authorities: 0,
            additionals: count(additionals),
        },
    };
    encoder.emit_at(place, header)?;
    Ok(truncated)
}

/// A record of the name that is asked for. The name stands behind the header, and is never written again: the
/// encoder would search for it, and stops doing so after some hundred records.
struct Own<'a>(&'a Record);

/// A pointer to the byte behind the header (RFC 1035, section 4.1.4).
const TO_QUESTION: u16 = 0xc00c;

impl BinEncodable for Own<'_> {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        let record = self.0;
        encoder.emit_u16(TO_QUESTION)?;
        record.record_type().emit(encoder)?;
        record.dns_class.emit(encoder)?;
        encoder.emit_u32(record.ttl)?;
        let place = encoder.place::<u16>()?;
        record.data.emit(encoder)?;
        let length = encoder.len_since_place(&place);
        encoder.emit_at(place, u16::try_from(length).unwrap_or(u16::MAX))
    }
}

/// Writes as many records as fit; says how many, and whether some did not.
fn emit(
    encoder: &mut BinEncoder<'_>,
    records: &[impl BinEncodable],
) -> Result<(usize, bool), ProtoError> {
    match encoder.emit_all(records.iter()) {
        Ok(count) => Ok((count, false)),
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => Ok((count, true)),
        Err(error) => Err(error),
    }
}

/// The answer to what has a header and nothing else that makes sense (FORMERR).
fn malformed(query: &Metadata) -> Reply {
    let mut message = Message::response(query.id, query.op_code);
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.response_code = ResponseCode::FormErr;
    write(&message, Outcome::Malformed, SMALLEST_LIMIT, false)
}
