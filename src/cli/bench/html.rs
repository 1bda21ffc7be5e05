//! The report: one HTML file, with a table and plots of one or several runs laid over each other. It needs no network.

use super::plot::{Axis, Line, Plot, Scale, colour, escaped};
use super::sweep_plots;
use anyhow::Context;
use indexmap::IndexMap;
use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%;font-size:13px}\
th,td{padding:.3em .5em;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}tr.off{opacity:.35}tbody tr{cursor:pointer}\
svg{width:100%;height:auto;margin:1.2em 0}.grid{stroke:#e4e4e4}.tick{font-size:11px;fill:#555}\
.axis{font-size:12px;fill:#333}.title{font-size:15px;font-weight:600}.key{display:inline-block;width:1.1em;height:.7em;margin-right:.5em}\
p{color:#555}";

/// A click on a run's row hides its lines.
const SCRIPT: &str = "\
document.querySelectorAll('section').forEach(part=>part.querySelectorAll('tbody tr').forEach((row,run)=>row.addEventListener('click',()=>{\
const off=row.classList.toggle('off');\
part.querySelectorAll('.run'+run).forEach(line=>line.style.display=off?'none':'');})));";

/// A run, as its JSON document tells it.
struct Run<'r> {
    document: &'r Value,
    name: String,
}

/// The page for these runs, each being what `--json` prints. Those that bear the same text as `group`, which whoever compares brokers adds, have
/// a part of the page for themselves.
pub fn page(documents: &[Value]) -> anyhow::Result<String> {
    let all: Vec<Run> =
        documents.iter().enumerate().map(|(number, document)| run(number, document)).collect::<Result<_, _>>()?;
    let title = match &all[..] {
        [only] => format!("corelog bench: {}", only.name),
        all => format!("corelog bench: {} runs", all.len()),
    };
    let (sweeps, runs): (Vec<Run>, Vec<Run>) = all.into_iter().partition(|run| !run.list("runs").is_empty());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escaped(&title)
    );
    if !runs.is_empty() {
        page.push_str("<p>Latencies are in microseconds. A click on a row hides its lines.</p>\n");
    }
    for (group, runs) in grouped(runs) {
        page.push_str("<section>");
        if !group.is_empty() {
            let _ = write!(page, "<h2>{}</h2>", escaped(group));
        }
        page.push_str(&table(&runs));
        for plot in [by_percentile(&runs), throughput(&runs), over_time(&runs)] {
            page.push_str(&plot.svg());
        }
        page.push_str("</section>\n");
    }
    page.push_str(&sweep_plots::of(&sweeps.iter().map(|sweep| (&*sweep.name, sweep.document)).collect::<Vec<_>>()));
    let _ = writeln!(page, "<script>{SCRIPT}</script></body></html>");
    Ok(page)
}

/// In the order in which they come first.
fn grouped<'r>(runs: Vec<Run<'r>>) -> IndexMap<&'r str, Vec<Run<'r>>> {
    let mut groups = IndexMap::new();
    for run in runs {
        let group = run.document.get("group").and_then(Value::as_str).unwrap_or_default();
        groups.entry(group).or_insert_with(Vec::new).push(run);
    }
    groups
}

fn run(number: usize, document: &Value) -> anyhow::Result<Run<'_>> {
    let text = |key: &str| document.get(key).and_then(Value::as_str);
    let work = text("work").with_context(|| format!("run {}: not what corelog bench --json prints", number + 1))?;
    let name = match text("label") {
        Some(label) if !label.is_empty() => label.to_owned(),
        _ => format!("{} {}", number + 1, text("over").unwrap_or(work)),
    };
    Ok(Run { document, name })
}

impl Run<'_> {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.document.pointer(pointer).and_then(Value::as_f64)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.document.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The latencies that the run is about.
    fn latency(&self, percentile: &str) -> Option<f64> {
        let end_to_end = self.number(&format!("/end_to_end_latency_us/{percentile}"));
        end_to_end.or_else(|| self.number(&format!("/request_latency_us/{percentile}")))
    }

    fn seconds(&self) -> f64 {
        self.number("/elapsed_seconds").filter(|seconds| *seconds > 0.0).unwrap_or(1.0)
    }

    fn step_seconds(&self) -> f64 {
        self.number("/step_seconds").filter(|seconds| *seconds > 0.0).unwrap_or(1.0)
    }
}

fn table(runs: &[Run]) -> String {
    let heads = [
        "run",
        "records/s",
        "MB/s",
        "requests/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "broker cores",
        "CPU-s/GB",
        "µs CPU a request",
        "generator cores",
    ];
    let mut text = String::from("<table><thead><tr>");
    heads.iter().for_each(|head| text.push_str(&format!("<th>{head}</th>")));
    text.push_str("</tr></thead><tbody>\n");
    for (number, run) in runs.iter().enumerate() {
        let seconds = run.seconds();
        let each = |pointer: &str, by: f64| run.number(pointer).map(|value| value / by);
        let cpu = run.number("/broker/cpu_seconds");
        let per = |pointer: &str, scale: f64| Some(cpu? * scale / run.number(pointer).filter(|value| *value > 0.0)?);
        let cells = [
            (each("/totals/records", seconds), 0),
            (each("/totals/bytes", seconds * 1e6), 1),
            (each("/totals/requests", seconds), 0),
            (run.latency("p50"), 0),
            (run.latency("p99"), 0),
            (run.latency("p99.9"), 0),
            (run.latency("max"), 0),
            (cpu.map(|cpu| cpu / seconds), 2),
            (per("/totals/bytes", 1e9), 2),
            (per("/totals/requests", 1e6), 1),
            (each("/generator/cpu_seconds", seconds), 2),
        ];
        let key = format!("<span class=\"key\" style=\"background:{}\"></span>", colour(number));
        let _ = write!(text, "<tr><td>{key}{}</td>", escaped(&run.name));
        for (value, digits) in cells {
            let shown = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
            let _ = write!(text, "<td>{shown}</td>");
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table>\n");
    text
}

fn by_percentile<'r>(runs: &'r [Run]) -> Plot<'r> {
    let line = |(number, run): (usize, &'r Run)| {
        // The greatest of so many stands where one of so many does: at 100 % there would be no end of nines.
        let most = 1.0 - 1.0 / run.latency("count").unwrap_or(1.0).max(1.0);
        let point = |pair: &Value| Some((pair.get(0)?.as_f64()?.min(most), pair.get(1)?.as_f64()?));
        let points = run.list("latency_curve_us").iter().filter_map(point).collect();
        Line { run: number, name: &run.name, is_dashed: false, points }
    };
    Plot {
        title: "Latency by percentile",
        x: Axis { label: "percentile", scale: Scale::Nines },
        y: Axis { label: "µs", scale: Scale::Log },
        lines: runs.iter().enumerate().map(line).collect(),
    }
}

fn throughput<'r>(runs: &'r [Run]) -> Plot<'r> {
    let line = |(number, run): (usize, &'r Run)| {
        let step = run.step_seconds();
        let bytes = run.list("steps").iter().filter_map(|step| step.get("bytes")?.as_f64());
        let points = bytes.enumerate().map(|(at, bytes)| ((at + 1) as f64 * step, bytes / 1e6 / step)).collect();
        Line { run: number, name: &run.name, is_dashed: false, points }
    };
    Plot {
        title: "Throughput over time",
        x: Axis { label: "seconds", scale: Scale::Linear },
        y: Axis { label: "MB/s", scale: Scale::Linear },
        lines: runs.iter().enumerate().map(line).collect(),
    }
}

fn over_time<'r>(runs: &'r [Run]) -> Plot<'r> {
    let mut lines = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let step = run.step_seconds();
        for (percentile, is_dashed) in [("p99", false), ("p50", true)] {
            let values = run.list("step_latency_us").iter().map(|step| step.get(percentile).and_then(Value::as_f64));
            // A step in which nothing was answered has no latency: its zero is left out.
            let points = values
                .enumerate()
                .filter_map(|(at, value)| Some(((at + 1) as f64 * step, value.filter(|value| *value > 0.0)?)));
            lines.push(Line { run: number, name: &run.name, is_dashed, points: points.collect() });
        }
    }
    Plot {
        title: "Latency over time: p99, and dashed p50",
        x: Axis { label: "seconds", scale: Scale::Linear },
        y: Axis { label: "µs", scale: Scale::Log },
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(label: &str) -> Value {
        json!({
            "label": label, "work": "produce", "elapsed_seconds": 2.0, "step_seconds": 1.0,
            "totals": { "records": 2000, "bytes": 2_000_000, "requests": 20, "errors": 0 },
            "request_latency_us": { "p50": 100, "p99": 900, "p99.9": 950, "max": 1000, "count": 2000 },
            "end_to_end_latency_us": null,
            "broker": { "cpu_seconds": 0.5, "resident_bytes": 1 },
            "generator": { "cpu_seconds": 0.1, "resident_bytes": 1 },
            "latency_curve_us": [[0.0, 50], [0.5, 100], [0.99, 900], [1.0, 1000]],
            "steps": [{ "bytes": 900_000 }, { "bytes": 1_100_000 }],
            "step_latency_us": [{ "p50": 90, "p99": 800 }, { "p50": 0, "p99": 0 }],
        })
    }

    #[test]
    fn runs_lie_over_each_other() {
        let page = page(&[document("before"), document("")]).expect("both are runs");
        for wanted in ["<td>1000</td>", "<td>250.00</td>", "before", "2 produce", "Latency by percentile"] {
            assert!(page.contains(wanted), "{wanted}");
        }
        for run in ["class=\"run0\"", "class=\"run1\""] {
            assert_eq!(page.matches(run).count(), 4, "a line by percentile, one of throughput, two over time");
        }
        assert!(!page.contains("http"), "nothing is fetched from elsewhere");
        assert!(page.contains("99.9 %") && !page.contains("99.99 %"), "2,000 latencies have no more nines");
    }

    /// Forty runs of twelve kinds of work lay over each other.
    #[test]
    fn groups_have_plots_of_their_own() {
        let of = |label: &str, group: &str| {
            let mut document = document(label);
            document["group"] = json!(group);
            document
        };
        let page = page(&[of("a", "fetch <1>"), of("b", "produce"), of("c", "fetch <1>")]).expect("all are runs");
        let parts: Vec<&str> = page.split("<section>").skip(1).collect();
        let [fetch, produce] = parts[..] else { panic!("two groups: {page}") };
        assert!(fetch.contains("<h2>fetch &lt;1&gt;</h2>") && produce.contains("<h2>produce</h2>"));
        assert_eq!((fetch.matches("<svg").count(), fetch.matches("class=\"run1\"").count()), (3, 4));
        assert_eq!((produce.matches("<svg").count(), produce.matches("class=\"run1\"").count()), (3, 0));
    }

    #[test]
    fn what_is_no_run_is_refused_by_number() {
        let error = page(&[document("a"), json!({ "x": 1 })]).expect_err("the second is none");
        assert!(error.to_string().starts_with("run 2"), "{error}");
    }
}
