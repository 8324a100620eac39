//! Lines, boxes and words in pixels, drawn by plotters' SVG backend.

use super::{FONT, Figure, INK, PAPER, file_name};
use anyhow::{Context, Result, anyhow};
use plotters::prelude::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle};
use std::fmt::Display;
use std::sync::Once;

/// The backend has whole coordinates; ten of them to a pixel keep curves smooth.
const FINE: f64 = 10.0;

/// A point in pixels, from the upper left.
pub(super) type Point = (f64, f64);

/// Where a text lies beside its point; it is centred vertically.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// The text begins at the point.
    Right,
    /// The text ends at the point.
    Left,
    Centre,
}

/// A sheet of paper.
pub(super) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

/// Draws a figure of this size in pixels: paper and title here, the rest in `draw`.
pub(super) fn figure(
    title: &str,
    caption: &str,
    description: &str,
    size: Point,
    draw: impl FnOnce(&mut Canvas<'_>) -> Result<()>,
) -> Result<Figure> {
    let paper = fine(size);
    let mut svg = String::new();
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut svg, (paper.0 as u32, paper.1 as u32)) };
    canvas.rectangle((0.0, 0.0), size, PAPER)?;
    canvas.text(title, (20.0, 28.0), 17.0, INK, Side::Right)?;
    draw(&mut canvas)?;
    canvas.backend.present().map_err(failed)?;
    drop(canvas);
    let (_, body) = svg.split_once('>').context("the figure is not a valid SVG")?;
    Ok(Figure { name: file_name(title), caption: caption.into(), svg: head(size, description) + body })
}

/// The backend's own head states the size in its fine coordinates; this one states it in pixels.
fn head(size: Point, description: &str) -> String {
    let ((width, height), paper) = (size, fine(size));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" \
         role=\"img\" aria-label=\"{}\">",
        paper.0,
        paper.1,
        escape(description)
    )
}

/// White paper of this size with texts that begin at their points, for pictures that are not figures.
pub(crate) fn sheet(size: (usize, usize), texts: &[(&str, (usize, usize))], text_size: f64) -> Result<String> {
    let (width, height) = (size.0 as f64, size.1 as f64);
    let mut svg = String::new();
    let paper = fine((width, height));
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut svg, (paper.0 as u32, paper.1 as u32)) };
    canvas.rectangle((0.0, 0.0), (width, height), PAPER)?;
    for (text, (x, y)) in texts {
        canvas.text(text, (*x as f64, *y as f64), text_size, INK, Side::Right)?;
    }
    canvas.backend.present().map_err(failed)?;
    drop(canvas);
    Ok(head((width, height), "") + svg.split_once('>').context("the sheet is not a valid SVG")?.1)
}

fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// XML has no place for control characters, escaped or not.
fn printable(text: &str) -> String {
    let printable = |c: char| if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') { ' ' } else { c };
    text.chars().map(printable).collect()
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("the figure could not be drawn: {error}")
}

fn shape(hex: &str, alpha: f64, stroke: f64, filled: bool) -> ShapeStyle {
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(0);
    let color = RGBColor(part(1), part(3), part(5));
    let color = plotters::style::Color::mix(&color, alpha);
    ShapeStyle { color, filled, stroke_width: (stroke * FINE).round() as u32 }
}

fn fine((x, y): Point) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

/// `size` is the SVG's `font-size` in pixels; the backend wants the height of a line.
fn font(size: f64) -> FontDesc<'static> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // It fails for bytes that are no font; these are part of the program.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, FONT);
    });
    FontDesc::new(FontFamily::SansSerif, size * FINE * 1.24, FontStyle::Normal)
}

/// About how wide a text is, in pixels; a little more than it is in the embedded font.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    font(size).layout_box(text).map_or(text.len() as f64 * size * 0.6, |(_, (x, _))| x as f64 / FINE)
}

impl Canvas<'_> {
    pub(super) fn rectangle(&mut self, from: Point, to: Point, hex: &str) -> Result<()> {
        self.backend.draw_rect(fine(from), fine(to), &shape(hex, 1.0, 0.0, true), true).map_err(failed)
    }

    pub(super) fn line(&mut self, from: Point, to: Point, hex: &str, width: f64) -> Result<()> {
        self.backend.draw_line(fine(from), fine(to), &shape(hex, 1.0, width, false)).map_err(failed)
    }

    pub(super) fn path(&mut self, points: &[Point], hex: &str, width: f64) -> Result<()> {
        self.backend.draw_path(points.iter().copied().map(fine), &shape(hex, 1.0, width, false)).map_err(failed)
    }

    /// A path in dashes of `on` pixels, `off` pixels apart.
    pub(super) fn dashed(&mut self, points: &[Point], hex: &str, width: f64, on: f64, off: f64) -> Result<()> {
        let mut dash: Vec<Point> = Vec::new();
        let (mut drawing, mut left) = (true, on);
        for pair in points.windows(2) {
            let (mut from, to) = (pair[0], pair[1]);
            loop {
                if drawing && dash.is_empty() {
                    dash.push(from);
                }
                let length = (to.0 - from.0).hypot(to.1 - from.1);
                if length <= left {
                    left -= length;
                    if drawing {
                        dash.push(to);
                    }
                    break;
                }
                let share = left / length;
                from = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
                if drawing {
                    dash.push(from);
                    self.path(&dash, hex, width)?;
                    dash.clear();
                }
                drawing = !drawing;
                left = if drawing { on } else { off };
            }
        }
        if dash.len() > 1 { self.path(&dash, hex, width) } else { Ok(()) }
    }

    /// A filled polygon, faint, for a spread.
    pub(super) fn band(&mut self, points: &[Point], hex: &str) -> Result<()> {
        self.backend.fill_polygon(points.iter().copied().map(fine), &shape(hex, 0.16, 0.0, true)).map_err(failed)
    }

    /// A circle filled with paper, so that it is seen on a bar and beside it.
    pub(super) fn dot(&mut self, centre: Point, radius: f64, hex: &str) -> Result<()> {
        let radius = (radius * FINE) as u32;
        self.backend.draw_circle(fine(centre), radius, &shape(PAPER, 1.0, 0.0, true), true).map_err(failed)?;
        self.backend.draw_circle(fine(centre), radius, &shape(hex, 1.0, 1.1, false), false).map_err(failed)
    }

    /// A circle filled with its colour.
    pub(super) fn disc(&mut self, centre: Point, radius: f64, hex: &str) -> Result<()> {
        self.backend
            .draw_circle(fine(centre), (radius * FINE) as u32, &shape(hex, 1.0, 0.0, true), true)
            .map_err(failed)
    }

    pub(super) fn text(&mut self, text: &str, at: Point, size: f64, hex: &str, side: Side) -> Result<()> {
        let h_pos = match side {
            Side::Right => HPos::Left,
            Side::Left => HPos::Right,
            Side::Centre => HPos::Center,
        };
        let colour = shape(hex, 1.0, 0.0, true).color;
        let style = TextStyle::from(font(size)).color(&colour).pos(Pos::new(h_pos, VPos::Center));
        self.backend.draw_text(&printable(text), &style, fine(at)).map_err(failed)
    }
}
