//! Line plots as SVG. Pure: numbers in, text out.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Told apart by most eyes (Okabe and Ito); further lines begin again with dashes.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a7a00"];

pub struct Plot<'p> {
    pub title: &'p str,
    pub x: Axis<'p>,
    pub y: Axis<'p>,
    pub lines: Vec<Line<'p>>,
}

pub struct Axis<'p> {
    pub label: &'p str,
    pub scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Log,
    /// Of quantiles: each further nine takes the same room.
    Nines,
}

pub struct Line<'p> {
    /// Which run it belongs to: decides colour, and hides with it.
    pub run: usize,
    pub name: &'p str,
    pub is_dashed: bool,
    pub points: Vec<(f64, f64)>,
}

/// The colour of a run in every plot.
pub fn colour(run: usize) -> &'static str {
    COLOURS[run % COLOURS.len()]
}

/// Text that may come from outside, for HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot<'_> {
    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let x = Range::of(self.x.scale, all().map(|point| point.0));
        let y = Range::of(self.y.scale, all().map(|point| point.1));
        let across = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let up = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", escaped(self.title));
        text(&mut svg, (LEFT, 18.0), "start", "title", self.title);
        for (value, label) in x.ticks() {
            let at = across(value);
            line(&mut svg, (at, TOP), (at, HEIGHT - BOTTOM));
            text(&mut svg, (at, HEIGHT - BOTTOM + 16.0), "middle", "tick", &label);
        }
        for (value, label) in y.ticks() {
            let at = up(value);
            line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at));
            text(&mut svg, (LEFT - 6.0, at + 4.0), "end", "tick", &label);
        }
        text(&mut svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0), "middle", "axis", self.x.label);
        text(&mut svg, (LEFT, TOP - 4.0), "end", "axis", self.y.label);
        for line in &self.lines {
            let points: Vec<String> =
                line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", across(*px), up(*py))).collect();
            let dash = match (line.is_dashed, line.run >= COLOURS.len()) {
                (true, _) => " stroke-dasharray=\"3 4\"",
                (false, true) => " stroke-dasharray=\"9 3\"",
                (false, false) => "",
            };
            // Writing to a string does not fail, here and below.
            let _ = writeln!(
                svg,
                "<polyline class=\"run{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"{dash} points=\"{}\"><title>{}</title></polyline>",
                line.run,
                colour(line.run),
                points.join(" "),
                escaped(line.name),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// What an axis shows, in the units of its scale.
struct Range {
    scale: Scale,
    least: f64,
    greatest: f64,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Range {
        let on_scale = values.filter(|value| value.is_finite()).map(|value| position(scale, value));
        let (least, greatest) = on_scale
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, greatest) = if least <= greatest { (least, greatest) } else { (0.0, 1.0) };
        let (least, greatest) = match scale {
            Scale::Linear => (0.0, greatest * 1.05),
            Scale::Log => (least.floor(), greatest.ceil()),
            Scale::Nines => (0.0, greatest),
        };
        // A single value still needs an axis.
        Range { scale, least, greatest: if greatest > least { greatest } else { least + 1.0 } }
    }

    /// 0 at the axis' beginning, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        ((position(self.scale, value) - self.least) / (self.greatest - self.least)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(self.greatest / 6.0);
                let count = (self.greatest / step).floor() as u32;
                (0..=count).map(|number| f64::from(number) * step).map(|value| (value, short(value))).collect()
            }
            Scale::Log => (self.least as i32..=self.greatest as i32)
                .map(|power| 10f64.powi(power))
                .map(|value| (value, short(value)))
                .collect(),
            Scale::Nines => (0..=self.greatest.floor() as i32)
                .map(|nines| {
                    let quantile = 1.0 - 10f64.powi(-nines);
                    let decimals = usize::try_from(nines - 2).unwrap_or(0);
                    (quantile, format!("{:.decimals$} %", quantile * 100.0))
                })
                .collect(),
        }
    }
}

fn position(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        // What is zero or less has no place there.
        Scale::Log => value.max(1e-3).log10(),
        Scale::Nines => -(1.0 - value).max(1e-9).log10(),
    }
}

/// 1, 2 or 5 times a power of ten, at least so much.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(power * 10.0)
}

fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(scale: Scale, values: &[f64]) -> Range {
        Range::of(scale, values.iter().copied())
    }

    #[test]
    fn axes_show_all_there_is_with_round_numbers() {
        let linear = range(Scale::Linear, &[3.0, 95.0]);
        assert_eq!(
            linear.ticks().iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>(),
            ["0", "20", "40", "60", "80"]
        );
        let log = range(Scale::Log, &[30.0, 20_000.0]);
        assert_eq!(
            log.ticks().iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>(),
            ["10", "100", "1000", "10 k", "100 k"]
        );
        assert!((log.place(1000.0) - 0.5).abs() < 1e-9);
        let nines = range(Scale::Nines, &[0.0, 0.9999]);
        assert_eq!(nines.ticks().len(), 5);
        assert_eq!(nines.ticks()[3].1, "99.9 %");
        assert!((nines.place(0.99) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn one_value_or_none_makes_a_plot_too() {
        for values in [&[][..], &[0.0], &[5.0], &[f64::NAN]] {
            for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
                let range = range(scale, values);
                assert!(range.place(5.0).is_finite() && range.ticks().len() < 50, "{scale:?} {values:?}");
            }
        }
    }

    #[test]
    fn a_plot_holds_its_lines_and_nothing_that_its_names_smuggle_in() {
        let axis = |scale| Axis { label: "MB/s", scale };
        let line = Line { run: 1, name: "<script>", is_dashed: true, points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let svg = Plot { title: "a & b", x: axis(Scale::Linear), y: axis(Scale::Linear), lines: vec![line] }.svg();
        assert!(svg.contains("a &amp; b") && svg.contains("class=\"run1\"") && svg.contains("&lt;script&gt;"));
        assert!(!svg.contains("<script") && svg.ends_with("</svg>\n"));
    }
}
