//! `drover doctor`: what is wrong on this host, why, and what to do about it.
//!
//! ```text
//! gather (sockets, engine, kernel, ports, answers) --> Facts --> checks (pure) --> Report
//! ```
//! Nothing here changes anything. What cannot be found out is said, and is no fault.

mod boot;
mod check;
mod facts;
mod kernel;
mod overlay;
mod port;
mod socket;

use drover_control_api::coordinator::{Finding, Severity};
use drover_daemon::Settings;
use serde::Serialize;

use crate::view::View;
use check::{CHECKS, Outcome};
use facts::Facts;

/// What `drover doctor --json` writes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// `severity` (`error`, `warning`), `problem`, `remedy`; errors first.
    findings: Vec<Finding>,
    /// What was looked at.
    checked: Vec<&'static str>,
    /// What could not be.
    skipped: Vec<Skipped>,
}

/// A check that was not made.
#[derive(Debug, Serialize)]
struct Skipped {
    /// Which.
    check: &'static str,
    /// Why not.
    reason: String,
}

/// Looks at everything.
pub(crate) async fn examine(settings: &Settings) -> Report {
    report(&facts::gather(settings).await)
}

fn report(facts: &Facts) -> Report {
    let mut report = Report::default();
    for (name, check) in CHECKS {
        match check(facts) {
            Outcome::Checked(findings) => {
                report.checked.push(name);
                for finding in findings {
                    if !report.findings.contains(&finding) {
                        report.findings.push(finding);
                    }
                }
            }
            Outcome::Skipped(reason) => report.skipped.push(Skipped {
                check: name,
                reason,
            }),
        }
    }
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report
}

impl Report {
    /// Whether something does not work.
    pub(crate) fn has_errors(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }
}

impl View for Report {
    fn render(&self) -> String {
        let mut lines = Vec::new();
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            lines.push(format!("{severity:<9}{}", finding.problem));
            lines.push(format!("{:<9}remedy: {}", "", finding.remedy));
        }
        if self.findings.is_empty() {
            lines.push("no faults found".to_owned());
        }
        lines.push(String::new());
        lines.push(format!("checked: {}", self.checked.join(", ")));
        let mut reasons: Vec<&str> = Vec::new();
        for reason in self.skipped.iter().map(|skipped| skipped.reason.as_str()) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        for reason in reasons {
            let skipped = self
                .skipped
                .iter()
                .filter(|skipped| skipped.reason == reason);
            let checks: Vec<&str> = skipped.map(|skipped| skipped.check).collect();
            lines.push(format!("not checked: {} ({reason})", checks.join(", ")));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
