//! What there is: `status`, `peers`, `ipam`, `networks`, `dns`, `volume`.
//!
//! Each view gathers an answer, which is what `--json` writes, and renders it for a person. The fields of
//! the answers are stable: a field may be added, none changes its name or meaning.

pub(crate) mod catalogue;
pub(crate) mod dns;
pub(crate) mod ipam;
pub(crate) mod networks;
pub(crate) mod peers;
pub(crate) mod status;
pub(crate) mod volumes;

use serde::Serialize;

use crate::output;

/// An answer that can be shown to a person.
pub(crate) trait View: Serialize {
    /// As text, without a line break at its end.
    fn render(&self) -> String;
}

/// Writes an answer in the form that was asked for.
pub(crate) fn show<V: View>(answer: &V, as_json: bool) {
    if as_json {
        output::json(answer);
    } else {
        output::line(&answer.render());
    }
}

#[cfg(test)]
pub(crate) mod golden;
