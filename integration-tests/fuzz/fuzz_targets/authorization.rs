//! The reading of calls: any bytes are survived, what is read in one spelling of the body is read in every other one, and a call
//! that is understood asks for something.
//!
//! ```text
//! mkdir -p target/corpus
//! cargo fuzz run --fuzz-dir integration-tests/fuzz authorization target/corpus integration-tests/fuzz/seeds/authorization
//! ```
//!
//! The input is a line with the method, one with the URI, and the body.
#![no_main]

use drover_authorization::{Call, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (text(), text()) else {
        return;
    };
    let body = parts.next().unwrap_or_default();
    let read = |body: &[u8]| {
        Request::read(&Call {
            method,
            uri,
            content_type: Some("application/json"),
            body,
        })
    };
    let Ok(request) = read(body) else {
        return;
    };
    assert!(!request.facets.is_empty(), "nothing is asked for");
    // White space around a value means nothing.
    let spaced = [b" \n".as_slice(), body, b"\t\r\n"].concat();
    let again = read(&spaced).expect("what was read is read with white space around it");
    assert_eq!(request.facets, again.facets);
    // What follows a value is refused, where a body is read at all.
    let with_more = [body, b" {}"].concat();
    if let Ok(other) = read(&with_more) {
        assert_eq!(request.facets, other.facets, "the body is not read");
    }
});
