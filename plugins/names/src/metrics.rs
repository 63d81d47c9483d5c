//! What was asked and answered, in the text format that Prometheus scrapes (version 0.0.4): `GET /metrics` on
//! `names.sock`.
//!
//! Counters are a container's, with its name; those of containers that are gone are added up under the empty name, so
//! that sums over all only grow. Times are for all containers together: a histogram for each would be most of the page.

use std::fmt::Write as _;

use drover_control_api::names::{HookKind, NameCounters, NameReport};

use crate::counters::{Counters, Histogram};

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page. `gone` has what those have asked that are gone, `all` everything.
pub(crate) fn page(report: &NameReport, gone: NameCounters, all: &Counters, now: u64) -> String {
    let mut page = Page(String::new());
    let stale = report
        .stale_since
        .map_or(0, |since| now.saturating_sub(since));
    for (name, help, value) in [
        (
            "followed",
            "Whether the coordinator's stream is followed.",
            u64::from(report.followed),
        ),
        (
            "stale_seconds",
            "For how long answers may have been out of date; 0 when they are not.",
            stale,
        ),
        ("networks", "Networks that have names.", report.networks),
        (
            "containers",
            "Containers of all hosts that are known.",
            report.containers,
        ),
        (
            "names",
            "Names that they have, a name once a network.",
            report.names,
        ),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
    page.family(
        "sandboxes",
        "gauge",
        "Containers of this host that are served, by how.",
    );
    for (label, kind) in [
        ("owned", HookKind::Owned),
        ("renewed", HookKind::Renewed),
        ("absent", HookKind::Absent),
    ] {
        let count = report.sandboxes.iter().filter(|it| it.hook == kind).count();
        page.sample(
            "sandboxes",
            &[("hook", label)],
            u64::try_from(count).unwrap_or(u64::MAX),
        );
    }
    page.counters(report, gone);
    page.family("latency_seconds", "histogram", "How long an answer took.");
    page.histogram("latency_seconds", "drover", &all.own_latency);
    page.histogram("latency_seconds", "docker", &all.passed_on_latency);
    page.0
}

/// A counter: its name, its label besides the container if it has one, and where it is read.
type Sample = (&'static str, fn(&NameCounters) -> u64);

const QUERIES: [Sample; 2] = [("udp", |it| it.udp), ("tcp", |it| it.tcp)];
const ANSWERS: [Sample; 7] = [
    ("records", |it| it.answered),
    ("no_data", |it| it.no_data),
    ("no_such_name", |it| it.no_such_name),
    ("passed_on", |it| it.passed_on),
    ("unanswered", |it| it.unanswered),
    ("malformed", |it| it.malformed),
    ("over_limit", |it| it.over_limit),
];

struct Page(String);

impl Page {
    fn counters(&mut self, report: &NameReport, gone: NameCounters) {
        let named = report.sandboxes.iter().filter_map(|sandbox| {
            let name = sandbox.name.as_deref()?;
            Some((name, sandbox.counters))
        });
        // One that is not known yet has asked nothing that was answered.
        let all: Vec<(&str, NameCounters)> = named.chain([("", gone)]).collect();
        let mut family = |name: &str, help: &str, label: Option<&str>, samples: &[Sample]| {
            self.family(name, "counter", help);
            for (container, counters) in &all {
                for (value, read) in samples {
                    let mut labels = vec![("container", *container)];
                    labels.extend(label.map(|label| (label, *value)));
                    self.sample(name, &labels, read(counters));
                }
            }
        };
        family(
            "queries_total",
            "Queries of containers.",
            Some("transport"),
            &QUERIES,
        );
        family(
            "answers_total",
            "What became of them.",
            Some("kind"),
            &ANSWERS,
        );
        family(
            "stale_answers_total",
            "Answers that may have been out of date; among the others, too.",
            None,
            &[("", |it| it.stale)],
        );
        family(
            "truncated_answers_total",
            "Answers that were cut to fit into a datagram; among the others, too.",
            None,
            &[("", |it| it.truncated)],
        );
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP drover_names_{name} {help}"));
        self.line(format_args!("# TYPE drover_names_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        if labels.is_empty() {
            self.line(format_args!("drover_names_{name} {value}"));
        } else {
            let labels = labels.join(",");
            self.line(format_args!("drover_names_{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, answered_by: &str, histogram: &Histogram) {
        let who = ("answered_by", answered_by);
        let mut seen = 0;
        for (end, count) in histogram.ranges() {
            seen += count;
            let end = end.map_or_else(|| "+Inf".to_owned(), seconds);
            self.sample(&format!("{name}_bucket"), &[who, ("le", &end)], seen);
        }
        self.sample(&format!("{name}_sum"), &[who], seconds(histogram.sum()));
        self.sample(&format!("{name}_count"), &[who], seen);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A text takes everything.
        let _taken = writeln!(self.0, "{line}");
    }
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_histogram_adds_up() {
        let all = Counters::default();
        for micros in [5, 5, 3000] {
            all.own_latency.took(Duration::from_micros(micros));
        }
        let text = page(&NameReport::default(), NameCounters::default(), &all, 100);
        for line in [
            "drover_names_latency_seconds_bucket{answered_by=\"drover\",le=\"0.000004\"} 0",
            "drover_names_latency_seconds_bucket{answered_by=\"drover\",le=\"0.000008\"} 2",
            "drover_names_latency_seconds_bucket{answered_by=\"drover\",le=\"+Inf\"} 3",
            "drover_names_latency_seconds_sum{answered_by=\"drover\"} 0.003010",
            "drover_names_latency_seconds_count{answered_by=\"drover\"} 3",
            "drover_names_queries_total{container=\"\",transport=\"udp\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert_eq!(escaped("a\"\\\n"), "a\\\"\\\\\\n");
    }

    #[test]
    fn it_tells_for_how_long_it_is_stale() {
        let report = NameReport {
            stale_since: Some(40),
            ..NameReport::default()
        };
        let text = page(&report, NameCounters::default(), &Counters::default(), 100);
        assert!(text.contains("drover_names_stale_seconds 60\n"), "{text}");
    }
}
