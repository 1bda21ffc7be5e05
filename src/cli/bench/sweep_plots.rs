//! How cost grows with a number: tables and plots of sweeps, laid over each other. Pure.

use super::plot::{Axis, Line, Plot, Scale, colour, escaped};
use serde_json::Value;
use std::fmt::Write;

/// Of one run: the work in it, in what unit, and how it is computed. What grows by itself has a logarithmic scale.
struct Figure {
    title: &'static str,
    unit: &'static str,
    digits: usize,
    scale: Scale,
    of: fn(&Value) -> Option<f64>,
}

const FIGURES: [Figure; 7] = [
    Figure {
        title: "Requests a second",
        unit: "1/s",
        digits: 0,
        scale: Scale::Linear,
        of: |run| rate(run, "requests"),
    },
    Figure {
        title: "Broker's CPU for a request",
        unit: "µs",
        digits: 2,
        scale: Scale::Linear,
        of: |run| cost(run, "requests", 1e6),
    },
    Figure {
        title: "Broker's CPU for a gigabyte",
        unit: "CPU-s",
        digits: 2,
        scale: Scale::Linear,
        of: |run| cost(run, "bytes", 1e9),
    },
    Figure {
        title: "Median latency",
        unit: "µs",
        digits: 0,
        scale: Scale::Log,
        of: |run| number(run, "/result/request_latency_us/p50"),
    },
    Figure {
        title: "p99 latency",
        unit: "µs",
        digits: 0,
        scale: Scale::Log,
        of: |run| number(run, "/result/request_latency_us/p99"),
    },
    Figure {
        title: "Broker's memory",
        unit: "MiB",
        digits: 1,
        scale: Scale::Linear,
        of: |run| Some(number(run, "/result/broker/resident_bytes")? / f64::from(1 << 20)),
    },
    Figure {
        title: "Broker's memory for each one more",
        unit: "KiB",
        digits: 1,
        scale: Scale::Linear,
        of: |run| Some(number(run, "/resident_bytes_each")? / 1024.0),
    },
];

/// Tables and plots of these sweeps, by name; nothing if there are none. A figure that no run has is left out.
pub fn of(sweeps: &[(&str, &Value)]) -> String {
    let mut text = String::new();
    for (number, (name, sweep)) in sweeps.iter().enumerate() {
        table(&mut text, number, name, sweep);
    }
    let overs: Vec<&str> = sweeps.iter().map(|(_, sweep)| over(sweep)).collect();
    let label = match overs.first() {
        Some(first) if overs.iter().all(|over| over == first) => *first,
        _ => "number",
    };
    for figure in &FIGURES {
        let lines: Vec<Line> = sweeps
            .iter()
            .enumerate()
            .map(|(number, (name, sweep))| Line {
                run: number,
                name,
                is_dashed: false,
                points: runs(sweep).iter().filter_map(|run| Some((count(run)?, (figure.of)(run)?))).collect(),
            })
            .collect();
        if lines.iter().any(|line| !line.points.is_empty()) {
            let x = Axis { label, scale: Scale::Log };
            let y = Axis { label: figure.unit, scale: figure.scale };
            text.push_str(&Plot { title: figure.title, x, y, lines }.svg());
        }
    }
    text
}

fn table(text: &mut String, number: usize, name: &str, sweep: &Value) {
    let key = format!("<span class=\"key\" style=\"background:{}\"></span>", colour(number));
    // Writing to a string does not fail, here and below.
    let _ = writeln!(text, "<p>{key}{}</p>", escaped(name));
    let _ = write!(text, "<table><thead><tr><th>{}</th>", escaped(over(sweep)));
    for figure in &FIGURES {
        let _ = write!(text, "<th>{}, {}</th>", figure.title, figure.unit);
    }
    text.push_str("</tr></thead><tbody>\n");
    for run in runs(sweep) {
        let _ = write!(text, "<tr><td>{:.0}</td>", count(run).unwrap_or(0.0));
        for figure in &FIGURES {
            let digits = figure.digits;
            let shown = (figure.of)(run).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
            let _ = write!(text, "<td>{shown}</td>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table>\n");
}

fn over(sweep: &Value) -> &str {
    sweep.get("over").and_then(Value::as_str).unwrap_or("number")
}

fn runs(sweep: &Value) -> &[Value] {
    sweep.get("runs").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn count(run: &Value) -> Option<f64> {
    number(run, "/count")
}

fn number(run: &Value, pointer: &str) -> Option<f64> {
    run.pointer(pointer).and_then(Value::as_f64)
}

/// Of a run's totals, each second.
fn rate(run: &Value, total: &str) -> Option<f64> {
    let seconds = number(run, "/result/elapsed_seconds").filter(|seconds| *seconds > 0.0)?;
    Some(number(run, &format!("/result/totals/{total}"))? / seconds)
}

/// CPU seconds for so many of a run's totals.
fn cost(run: &Value, total: &str, scale: f64) -> Option<f64> {
    let total = number(run, &format!("/result/totals/{total}")).filter(|total| *total > 0.0)?;
    Some(number(run, "/result/broker/cpu_seconds")? * scale / total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sweep(broker: Value) -> Value {
        let run = |count: u32, each: Value| {
            json!({ "count": count, "resident_bytes_each": each, "result": {
                "elapsed_seconds": 2.0, "totals": { "requests": 1000, "bytes": 4_000_000 },
                "request_latency_us": { "p50": 50, "p99": 900 }, "broker": broker,
            } })
        };
        json!({ "over": "connections", "runs": [run(1, json!(null)), run(100, json!(12288.0))] })
    }

    #[test]
    fn what_runs_cost_is_computed_and_drawn() {
        let with = sweep(json!({ "cpu_seconds": 0.5, "resident_bytes": 3 << 20 }));
        let page = of(&[("<a>", &with), ("b", &with)]);
        for wanted in [
            "<td>500.00</td>",
            "<td>125.00</td>",
            "<td>3.0</td>",
            "<td>12.0</td>",
            "<td>-</td>",
            "&lt;a&gt;",
            ">connections<",
        ] {
            assert!(page.contains(wanted), "{wanted} in {page}");
        }
        assert_eq!((page.matches("<svg").count(), page.matches("<polyline").count()), (7, 14));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(of(&[("a", &sweep(json!(null)))]).matches("<svg").count(), 4);
        assert_eq!(of(&[]), "");
        assert!(of(&[("a", &json!({}))]).contains("<table>"));
    }
}
