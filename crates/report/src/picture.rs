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
    /// A caption above each column; empty for none.
    pub column_captions: Vec<String>,
    /// Pixels drawn for each pixel of a picture, nearest neighbour; 0 counts as 1.
    pub scale: usize,
    /// Pixels between pictures and around them.
    pub padding: usize,
}

/// The size of captions in pixels, and the height of the line that the captions of columns take.
const TEXT: usize = 13;
const TEXT_LINE: usize = 20;

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
        let text_width = |t: &String| (crate::figure::text_width(t, TEXT as f64).ceil() as usize).min(320);
        let left =
            self.padding + self.row_captions.iter().map(|t| text_width(t) + self.padding.max(6)).max().unwrap_or(0);
        let top = self.padding + if self.column_captions.is_empty() { 0 } else { TEXT_LINE };
        let place =
            |row: usize, column: usize| (left + column * (width + self.padding), top + row * (height + self.padding));
        // The captions of narrow columns may reach beyond the last picture.
        let (right, bottom) = place(self.rows.len(), columns);
        let right = match self.column_captions.last() {
            Some(text) => right.max(place(0, columns - 1).0 + text_width(text) + self.padding),
            None => right,
        };
        let mut canvas = self.captions(right, bottom, place, height)?;
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

    /// The white sheet with its captions.
    fn captions(
        &self,
        width: usize,
        height: usize,
        place: impl Fn(usize, usize) -> (usize, usize),
        row_height: usize,
    ) -> Result<RgbImage> {
        let limit = 32_768;
        ensure!(
            width <= limit && height <= limit,
            "a picture grid of {width}x{height} pixels is larger than {limit}; show fewer pictures or a smaller scale"
        );
        let mut texts = Vec::new();
        for (row, text) in self.row_captions.iter().enumerate() {
            texts.push((text.as_str(), (self.padding, place(row, 0).1 + row_height / 2)));
        }
        for (column, text) in self.column_captions.iter().enumerate() {
            texts.push((text.as_str(), (place(0, column).0, self.padding + TEXT_LINE / 2 - 3)));
        }
        let svg = crate::figure::sheet((width, height), &texts, TEXT as f64)?;
        let pixmap = render(&svg, 1.0)?;
        let rgb = pixmap.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
        RgbImage::from_raw(pixmap.width(), pixmap.height(), rgb)
            .context("the sheet of a picture grid has the wrong size")
    }
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
    fn wrong_sizes_are_refused() {
        for (channels, bytes) in [(1, 5), (3, 4), (2, 8)] {
            assert!(Picture::new(2, 2, channels, vec![0; bytes]).is_err());
        }
        assert!(Grid::default().png().is_err());
        let grid = Grid { rows: vec![vec![picture(1, 1, 1)]], row_captions: vec![String::new(); 2], ..Grid::default() };
        assert!(grid.png().expect_err("two captions").to_string().contains("found 2"));
    }
}
