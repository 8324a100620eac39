//! Encoders: images in, features out.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which encoder, written as in `encoder = "resnet18-cifar"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EncoderConfig {
    ConvNet,
}

impl FromStr for EncoderConfig {
    type Err = anyhow::Error;
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "convnet" => Ok(EncoderConfig::ConvNet),
            _ => bail!("unknown encoder `{name}`"),
        }
    }
}
impl TryFrom<String> for EncoderConfig {
    type Error = anyhow::Error;
    fn try_from(name: String) -> Result<Self> { name.parse() }
}
impl From<EncoderConfig> for String {
    fn from(config: EncoderConfig) -> String { config.to_string() }
}
impl fmt::Display for EncoderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("convnet") }
}
