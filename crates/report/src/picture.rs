//! Grids of small images: views of an augmentation, reconstructions, as PNG.

use crate::figure::render;
use anyhow::{Context, Result, ensure};
use image::{ImageFormat, RgbImage};
use std::io::Cursor;

/// A small image, `pixels` [height, width, channels] in u8, one channel (grey) or three (RGB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Takes pixels, row by row, channels last.
    pub fn new(height: usize, width: usize, channels: usize, pixels: Vec<u8>) -> Result<Picture> {
        ensure!(
            channels == 1 || channels == 3,
            "a picture has 1 channel (grey) or 3 (RGB), found {channels}; give it the channels that it should show"
        );
        ensure!(
            height > 0 && width > 0 && pixels.len() == height * width * channels,
            "a picture of {height}x{width} with {channels} channels has {} bytes, found {}",
            height * width * channels,
            pixels.len()
        );
        Ok(Picture { height, width, channels, pixels })
    }

    /// The picture in a frame of so many pixels and a colour.
    pub fn framed(&self, width: usize, colour: [u8; 3]) -> Picture {
        let (tall, wide) = (self.height + 2 * width, self.width + 2 * width);
        let inside =
            |y: usize, x: usize| (width..width + self.height).contains(&y) && (width..width + self.width).contains(&x);
        let places = (0..tall).flat_map(|y| (0..wide).map(move |x| (y, x)));
        let pixels = places.flat_map(|(y, x)| if inside(y, x) { self.rgb(y - width, x - width) } else { colour });
        Picture { height: tall, width: wide, channels: 3, pixels: pixels.collect() }
    }

    fn rgb(&self, y: usize, x: usize) -> [u8; 3] {
        let at = (y * self.width + x) * self.channels;
        match self.channels {
            1 => [self.pixels[at]; 3],
            _ => [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]],
        }
    }
}

/// Pictures in rows and columns; they may differ in size and stand centred in their places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Rows of pictures; a short row leaves its last places empty.
    pub rows: Vec<Vec<Picture>>,
    /// A caption before each row; empty for none.
    pub row_captions: Vec<String>,
    /// A caption below each column, in lines as wide as its pictures; empty for none.
    pub column_captions: Vec<String>,
    /// Pixels drawn for each pixel of a picture, nearest neighbour; 0 counts as 1.
    pub scale: usize,
    /// Pixels between pictures and around them.
    pub padding: usize,
}

/// The size of captions in pixels, and the height of a line of them.
const TEXT: usize = 13;
const TEXT_LINE: usize = 17;

fn text_width(text: &str) -> usize {
    crate::figure::text_width(text, TEXT as f64).ceil() as usize
}

/// `text` in lines of at most `width` pixels; a word that is wider is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let longer = if line.is_empty() { word.to_string() } else { format!("{line} {word}") };
        if text_width(&longer) <= width {
            line = longer;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if !line.is_empty() && text_width(&format!("{line}{c}")) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

impl Grid {
    /// The grid as PNG bytes, on white.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        self.draw()?.write_to(&mut bytes, ImageFormat::Png).context("the picture grid could not be encoded as PNG")?;
        Ok(bytes.into_inner())
    }

    fn draw(&self) -> Result<RgbImage> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        ensure!(columns > 0, "a picture grid needs a picture, found none");
        for (captions, places, what) in
            [(&self.row_captions, self.rows.len(), "rows"), (&self.column_captions, columns, "columns")]
        {
            ensure!(
                captions.is_empty() || captions.len() == places,
                "a picture grid of {places} {what} needs as many captions for them or none, found {}",
                captions.len()
            );
        }
        let all = || self.rows.iter().flatten();
        let scale = self.scale.max(1);
        let height = scale * all().map(|p| p.height).max().unwrap_or(0);
        let width = scale * all().map(|p| p.width).max().unwrap_or(0);
        let row_width = |t: &String| text_width(t).min(320) + self.padding.max(6);
        let left = self.padding + self.row_captions.iter().map(row_width).max().unwrap_or(0);
        let place = |row: usize, column: usize| {
            (left + column * (width + self.padding), self.padding + row * (height + self.padding))
        };
        let (right, bottom) = place(self.rows.len(), columns);
        let below: Vec<Vec<String>> = self.column_captions.iter().map(|text| wrap(text, width)).collect();
        let mut texts: Vec<(&str, (usize, usize))> = Vec::new();
        for (row, text) in self.row_captions.iter().enumerate() {
            texts.push((text, (self.padding, place(row, 0).1 + height / 2)));
        }
        for (column, lines) in below.iter().enumerate() {
            let at = |line: usize| (place(0, column).0, bottom + line * TEXT_LINE + TEXT_LINE / 2);
            texts.extend(lines.iter().enumerate().map(|(line, text)| (text.as_str(), at(line))));
        }
        let lines = below.iter().map(Vec::len).max().unwrap_or(0);
        let mut canvas = sheet(right, bottom + lines * TEXT_LINE, &texts)?;
        for (r, row) in self.rows.iter().enumerate() {
            for (c, picture) in row.iter().enumerate() {
                let (x0, y0) = place(r, c);
                let (x0, y0) = (x0 + (width - scale * picture.width) / 2, y0 + (height - scale * picture.height) / 2);
                for y in 0..scale * picture.height {
                    for x in 0..scale * picture.width {
                        canvas.put_pixel(
                            (x0 + x) as u32,
                            (y0 + y) as u32,
                            image::Rgb(picture.rgb(y / scale, x / scale)),
                        );
                    }
                }
            }
        }
        Ok(canvas)
    }
}

/// A white sheet with texts.
fn sheet(width: usize, height: usize, texts: &[(&str, (usize, usize))]) -> Result<RgbImage> {
    let limit = 32_768;
    ensure!(
        width <= limit && height <= limit,
        "a picture grid of {width}x{height} pixels is larger than {limit}; show fewer pictures or a smaller scale"
    );
    let pixmap = render(&crate::figure::sheet((width, height), texts, TEXT as f64)?, 1.0)?;
    let rgb = pixmap.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    RgbImage::from_raw(pixmap.width(), pixmap.height(), rgb).context("the sheet of a picture grid has the wrong size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(height: usize, width: usize, channels: usize) -> Picture {
        let pixels = (0..height * width * channels).map(|i| (i * 37 % 251) as u8).collect();
        Picture::new(height, width, channels, pixels).expect("a picture")
    }

    #[test]
    fn pixels_lie_where_the_grid_says() {
        let (grey, rgb) = (picture(2, 3, 1), picture(2, 3, 3));
        let grid = Grid {
            rows: vec![vec![grey.clone(), rgb.clone()], vec![rgb.clone()]],
            scale: 4,
            padding: 5,
            ..Grid::default()
        };
        let drawn = image::load_from_memory(&grid.png().expect("a PNG")).expect("an image").to_rgb8();
        assert_eq!(drawn.dimensions(), (5 + 2 * (12 + 5), 5 + 2 * (8 + 5)));
        for (x, y, expected) in [
            (5, 5, grey.rgb(0, 0)),
            (5 + 11, 5 + 7, grey.rgb(1, 2)),
            (5 + 17 + 4, 5 + 4, rgb.rgb(1, 1)),
            (5 + 3, 5 + 13 + 3, rgb.rgb(0, 0)),
            (0, 0, [255; 3]),
            (5 + 17 + 1, 5 + 13 + 1, [255; 3]),
        ] {
            assert_eq!(drawn.get_pixel(x, y).0, expected, "pixel {x}, {y}");
        }
    }

    #[test]
    fn captions_are_drawn_beside_the_pictures() {
        let rows = vec![vec![picture(8, 8, 3); 3]; 2];
        let bare = Grid { rows: rows.clone(), scale: 2, padding: 4, ..Grid::default() };
        let named = Grid { row_captions: vec!["view 1".into(), "<b>&".into()], ..bare.clone() };
        let (bare, named) = (bare.draw().expect("bare"), named.draw().expect("named"));
        assert!(named.width() > bare.width() && named.height() == bare.height());
        let shift = named.width() - bare.width();
        assert!(
            (0..bare.height())
                .all(|y| (4..bare.width()).all(|x| bare.get_pixel(x, y) == named.get_pixel(x + shift, y)))
        );
        assert!((0..shift).any(|x| (0..named.height() / 2).any(|y| named.get_pixel(x, y).0[0] < 128)), "no ink");
    }

    #[test]
    fn captions_of_columns_stand_below_them_in_lines_of_their_width() {
        let lines = wrap("negative squared latin capital letter a", 96);
        assert_eq!(lines.join(" "), "negative squared latin capital letter a");
        assert!(lines.len() > 2 && lines.iter().all(|line| text_width(line) <= 96), "{lines:?}");
        let cut = wrap("incomprehensibilities", 60);
        assert!(cut.len() > 1 && cut.concat() == "incomprehensibilities", "{cut:?}");
        assert_eq!(wrap("", 60), [""]);

        let rows = vec![vec![picture(8, 8, 3); 2]; 2];
        let bare = Grid { rows: rows.clone(), scale: 8, padding: 4, ..Grid::default() };
        let named = Grid { column_captions: vec!["a b".into(), "longer than that".into()], ..bare.clone() };
        let (bare, named) = (bare.draw().expect("bare"), named.draw().expect("named"));
        let more = wrap("longer than that", 64).len() * TEXT_LINE;
        assert_eq!((named.width(), named.height()), (bare.width(), bare.height() + more as u32));
        assert!((0..bare.height()).all(|y| (0..bare.width()).all(|x| bare.get_pixel(x, y) == named.get_pixel(x, y))));
        for column in [4..68, 72..136] {
            let ink = |x: u32| (bare.height()..named.height()).any(|y| named.get_pixel(x, y).0[0] < 128);
            assert!(column.into_iter().any(ink), "no ink");
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        for (channels, bytes) in [(1, 5), (3, 4), (2, 8)] {
            assert!(Picture::new(2, 2, channels, vec![0; bytes]).is_err());
        }
        assert!(Grid::default().png().is_err());
        let grid = Grid { rows: vec![vec![picture(1, 1, 1)]], row_captions: vec![String::new(); 2], ..Grid::default() };
        assert!(grid.png().expect_err("two captions").to_string().contains("found 2"));
    }
}
