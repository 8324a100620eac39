//! The report: one HTML page with all it shows inside, for a browser, a phone or paper.
//!
//! Every text is escaped by the template engine; only the figures' SVG, which this crate draws and escapes itself, goes
//! in as it is. The page loads nothing.

use crate::figure::{Figure, GRID, INK, MUTED, PAPER};
use crate::file::write_whole;
use crate::results::{COLUMNS, Row, to_csv};
use crate::table::{Kind, Listing, Table};
use anyhow::{Context, Result};
use minijinja::{Environment, Value, context};
use std::path::Path;

/// Rows of results.csv that the page itself shows; the file has all of them.
const RAW_ROWS: usize = 3000;

/// All that a page shows; empty parts are left out.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub title: String,
    /// One or two sentences under the title.
    pub lead: String,
    /// When and with what it was made: (`commit`, `0a1b2c3`), (`device`, …), (`command`, …).
    pub meta: Vec<(String, String)>,
    pub tables: Vec<Table>,
    /// Those without lines are left out.
    pub listings: Vec<Listing>,
    pub figures: Vec<Figure>,
    /// What the cards are of; empty: methods.
    pub cards_title: String,
    pub cards: Vec<Card>,
    /// How the features were judged: (`kNN`, `k = 20, temperature 0.07, …`).
    pub protocol: Vec<(String, String)>,
    /// What a reader must know: what is small, missing or not comparable.
    pub notes: Vec<String>,
    /// (text, relative address) of files beside the page: results.csv.
    pub links: Vec<(String, String)>,
    /// The rows behind it all, shown folded.
    pub rows: Vec<Row>,
}

/// One method, or one claim.
#[derive(Clone, Debug, Default)]
pub struct Card {
    pub name: String,
    /// Authors, title, year; an address in it becomes a link.
    pub paper: String,
    pub family: String,
    /// (caption, PNG bytes): views, reconstructions.
    pub pictures: Vec<(String, Vec<u8>)>,
    /// (caption, PNG bytes) of figures that lie in the run's folder: forecasts of series.
    pub drawings: Vec<(String, Vec<u8>)>,
    /// (caption, text): what a method of text wrote.
    pub texts: Vec<(String, String)>,
    /// Curves of its own, such as the loss.
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Page {
    /// The page as HTML. Equal pages give equal text.
    pub fn html(&self) -> Result<String> {
        let mut environment = Environment::new();
        // The ending of the name turns escaping on.
        environment
            .add_template("report.html", include_str!("report.html"))
            .context("the page's template is broken")?;
        let template = environment.get_template("report.html").context("the page's template is broken")?;
        let texts = |notes: &[String]| notes.iter().map(|note| pieces(note)).collect::<Vec<_>>();
        let raw = to_csv(&self.rows[..self.rows.len().min(RAW_ROWS)])?;
        let page = context! {
            title => self.title.as_str(),
            lead => self.lead.as_str(),
            meta => pairs(&self.meta),
            tables => self.tables.iter().map(table).collect::<Vec<_>>(),
            listings => self.listings.iter().filter(|l| !l.lines.is_empty()).cloned().map(listing).collect::<Vec<_>>(),
            figures => self.figures.iter().map(figure).collect::<Vec<_>>(),
            cards_title => if self.cards_title.is_empty() { "Methods" } else { &self.cards_title },
            cards => self.cards.iter().map(card).collect::<Vec<_>>(),
            protocol => pairs(&self.protocol),
            notes => texts(&self.notes),
            links => pairs(self.links.iter().filter(|l| relative(&l.1))),
            columns => COLUMNS,
            raw => raw_fields(&raw)?,
            row_count => self.rows.len(),
            colours => context! { paper => PAPER, ink => INK, muted => MUTED, grid => GRID },
        };
        template.render(page).context("the page could not be made")
    }

    /// Writes the page whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.html()?.as_bytes())
    }
}

fn raw_fields(csv: &[u8]) -> Result<Vec<Vec<String>>> {
    let mut reader = csv::Reader::from_reader(csv);
    reader.records().map(|r| Ok(r?.iter().map(str::to_string).collect())).collect()
}

fn table(table: &Table) -> Value {
    let lines: Vec<Value> = table
        .lines
        .iter()
        .map(|line| {
            let cells: Vec<Value> = line
                .cells
                .iter()
                .zip(&table.columns)
                .map(|(cell, column)| match cell {
                    Some(cell) => context! {
                        value => cell.value(column),
                        n => cell.n(),
                        gain => cell.gain.filter(|_| column.percent()).map(|g| format!("{:+.2}", 100.0 * g)),
                        scores => cell.scores.iter().map(|(s, v)| format!("seed {s}: {v}")).collect::<Vec<_>>().join("\n"),
                    },
                    None if line.diverged > 0 => context! { missing => "diverged" },
                    None if line.failed > 0 => context! { missing => "failed" },
                    None => context! { missing => "–" },
                })
                .collect();
            let verdict = table.verdict(line);
            context! {
                name => line.name(),
                family => line.family.as_str(),
                encoder => line.encoder.as_str(),
                cells,
                own => line.own_text(),
                runs => line.runs_text(),
                lost => line.diverged + line.failed > 0,
                verdict => verdict.text,
                beats => verdict.beats.map(|b| if b { "yes" } else { "no" }),
                apart => match line.kind { Kind::Random | Kind::Baseline => "first", Kind::Supervised => "last", Kind::Method => "" },
            }
        })
        .collect();
    let columns: Vec<String> = table.columns.iter().map(|c| c.title()).collect();
    context! { title => table.title(), columns, own => table.has_own(), lines }
}

fn listing(Listing { title, head, lines, note }: Listing) -> Value {
    context! { title, head, lines, note }
}

fn pairs<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> Vec<Vec<String>> {
    pairs.into_iter().map(|(a, b)| vec![a.clone(), b.clone()]).collect()
}

fn figure(figure: &Figure) -> Value {
    context! { name => figure.name.as_str(), caption => figure.caption.as_str(), svg => Value::from_safe_string(figure.svg.clone()) }
}

fn card(card: &Card) -> Value {
    let pictures = |pictures: &[(String, Vec<u8>)]| -> Vec<Value> {
        pictures.iter().map(|(caption, png)| context! { caption => caption.as_str(), data => base64(png) }).collect()
    };
    context! {
        name => card.name.as_str(),
        paper => pieces(&card.paper),
        family => card.family.as_str(),
        pictures => pictures(&card.pictures),
        drawings => pictures(&card.drawings),
        texts => pairs(&card.texts),
        figures => card.figures.iter().map(figure).collect::<Vec<_>>(),
        notes => card.notes.iter().map(|note| pieces(note)).collect::<Vec<_>>(),
    }
}

/// A text cut into words that are addresses and what lies between them.
fn pieces(text: &str) -> Vec<Value> {
    let mut pieces = Vec::new();
    for word in text.split_inclusive(char::is_whitespace) {
        let start = word.find("https://").or_else(|| word.find("http://"));
        let Some(start) = start else {
            pieces.push(context! { text => word });
            continue;
        };
        let address = word[start..].trim_end_matches(|c: char| c.is_whitespace() || ".,;)>".contains(c));
        pieces.push(context! { text => &word[..start] });
        pieces.push(context! { text => address, address });
        pieces.push(context! { text => &word[start + address.len()..] });
    }
    pieces
}

/// Whether an address names a file beside the page or below, so that it can hold neither a script nor another host.
fn relative(address: &str) -> bool {
    !address.is_empty()
        && !address.contains([':', '\\'])
        && !address.starts_with('/')
        && !address.contains(char::is_control)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > group.len() { '=' } else { DIGITS[value as usize] as char });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn only_relative_links_are_kept() {
        for good in ["results.csv", "plots/a b.svg", "../x.csv"] {
            assert!(relative(good), "{good}");
        }
        for bad in ["javascript:alert(1)", "https://example.org", "//example.org/x", "", "\\\\host\\x"] {
            assert!(!relative(bad), "{bad}");
        }
    }
}
