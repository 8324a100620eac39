//! Reads tensors out of what Python's `torch.save` writes. A pickle is a program; this one is carried out on values that
//! stand for themselves, and no class, function or code that it names is ever looked up.
//!
//! Formats: the zip archive that PyTorch writes since 1.6 (`data.pkl` and `data/KEY` within one folder), and the row of
//! pickles of before. Opcodes: Python's pickletools, protocols 2 to 5, as far as `torch.save` uses them.

use crate::checkpoint::MOST_SIDES;
use anyhow::{Context, Result, bail, ensure};
use selfsup_core::{Device, Kind, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use zip::ZipArchive;

/// What the first pickle of a file of the old format holds, as its 80 bits lie there.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Dictionaries within dictionaries that are looked into for tensors.
const DEEPEST: usize = 4;
/// Entries of dictionaries that are looked at: many times what the largest networks have.
const MOST_ENTRIES: usize = 1_000_000;

/// The tensors of a file of `torch.save` by name, on the CPU, row by row in memory. Those in dictionaries within
/// dictionaries are named by all of them, with dots between, such as `state_dict.conv1.weight`; what is no tensor is left
/// out.
///
/// # Errors
/// If the file is not of `torch.save`, damaged, or holds no dictionary.
pub fn read(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = fs::read(path).with_context(|| format!("{}: could not be read", path.display()))?;
    tensors(&bytes).with_context(|| format!("{}: no tensors could be read out of this Python pickle", path.display()))
}

/// As [`read`], of the bytes of a file.
///
/// # Errors
/// As there, without the name of the file.
pub fn tensors(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let (found, storages) = if bytes.starts_with(b"PK") { archive(bytes)? } else { pickles(bytes)? };
    let all = found.iter().try_fold(0usize, |sum, (_, tensor)| {
        let wide = tensor.storage.kind.elt_size_in_bytes();
        sum.checked_add(tensor.size.iter().try_fold(wide, |n, &side| n.checked_mul(side))?)
    });
    // Weights may be shared, but not so that a small file fills the memory.
    ensure!(all.is_some_and(|all| all / 4 <= bytes.len()), "its tensors are much larger than the file");
    let value = |tensor: &Described| {
        let storage = storages.get(&tensor.storage.key).context("the numbers of a tensor are missing")?;
        tensor.value(storage)
    };
    found.iter().map(|(name, tensor)| Ok((name.clone(), value(tensor)?))).collect()
}

/// Tensors by name, and the bytes of each storage by its key.
type Contents<'a> = (Vec<(String, Described)>, HashMap<String, Cow<'a, [u8]>>);

fn archive(bytes: &[u8]) -> Result<Contents<'_>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).context("the archive is damaged or cut short")?;
    let names: Vec<String> = archive.file_names().map(String::from).collect();
    let mut folders = names.iter().filter_map(|name| name.strip_suffix("/data.pkl"));
    let (Some(folder), None) = (folders.next(), folders.next()) else {
        bail!("expected an archive with one `data.pkl`, as torch.save writes it")
    };
    let mut entry = |name: &str| -> Result<Vec<u8>> {
        let name = format!("{folder}/{name}");
        let shown = || format!("`{}` in the archive", name.escape_debug());
        let file = archive.by_name(&name).with_context(shown)?;
        let mut content = Vec::new();
        // All is stored as it is, so that no entry is larger than the archive.
        file.take(bytes.len() as u64).read_to_end(&mut content).with_context(shown)?;
        Ok(content)
    };
    if names.contains(&format!("{folder}/byteorder")) {
        ensure!(entry("byteorder")? == b"little", "its numbers have their highest byte first");
    }
    let pickle = entry("data.pkl")?;
    let mut machine = Machine::new(&pickle);
    let root = machine.run()?;
    let found = machine.found(root)?;
    let mut storages = HashMap::new();
    for (_, tensor) in &found {
        if !storages.contains_key(&tensor.storage.key) {
            let content = entry(&format!("data/{}", tensor.storage.key))?;
            storages.insert(tensor.storage.key.clone(), content.into());
        }
    }
    Ok((found, storages))
}

fn pickles(bytes: &[u8]) -> Result<Contents<'_>> {
    let mut machine = Machine::new(bytes);
    let magic = machine.run()?;
    let right = matches!(&machine.values[magic], Value::Long(digits) if *digits == MAGIC);
    ensure!(right, "it is none of torch.save");
    machine.run()?; // The version of the format.
    machine.run()?; // The kind of machine it was saved on, which has the lowest byte first wherever PyTorch runs.
    let root = machine.run()?;
    let found = machine.found(root)?;
    let keys = machine.run()?;
    let Value::Items(keys) = machine.values[keys].clone() else { bail!("the list of its storages is missing") };
    // All their contents follow, in the order of the keys: a count of 8 bytes, then the numbers.
    let mut storages = HashMap::new();
    for key in keys {
        let key = machine.text(key)?;
        let storage = machine.storages.get(&key).cloned().context("a storage is listed and nowhere described")?;
        let count = machine.number(8)?;
        ensure!(count == storage.numel, "a storage has {count} numbers, not {}", storage.numel);
        let length = count.checked_mul(storage.kind.elt_size_in_bytes()).context("a storage is damaged")?;
        storages.insert(key, machine.take(length)?.into());
    }
    Ok((found, storages))
}

/// Where numbers lie.
#[derive(Clone, Debug)]
struct Storage {
    kind: Kind,
    key: String,
    numel: usize,
}

/// A tensor that nobody has read yet.
#[derive(Clone, Debug)]
struct Described {
    storage: Storage,
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

impl Described {
    /// The tensor, out of the bytes of its storage.
    fn value(&self, bytes: &[u8]) -> Result<Tensor> {
        let Described { storage: Storage { kind, numel, .. }, offset, size, stride } = self;
        let wide = kind.elt_size_in_bytes();
        ensure!(numel.checked_mul(wide) == Some(bytes.len()), "{numel} numbers of {kind:?} have {} bytes", bytes.len());
        ensure!(size.len() == stride.len() && size.len() <= MOST_SIDES, "a shape is damaged");
        let signed = |list: &[usize]| list.iter().map(|&n| n as i64).collect::<Vec<i64>>();
        if size.contains(&0) {
            return Ok(Tensor::f_zeros(signed(size), (*kind, Device::Cpu))?);
        }
        let last = size.iter().zip(stride).try_fold(*offset, |at, (side, stride)| {
            at.checked_add((side - 1).checked_mul(*stride)?) // No side is 0.
        });
        let last = last.filter(|last| last < numel).context("a tensor reaches beyond its numbers")?;
        let span =
            Tensor::f_from_data_size(&bytes[offset * wide..(last + 1) * wide], &[(last + 1 - offset) as i64], *kind)?;
        Ok(span.f_as_strided(signed(size), signed(stride), 0)?.f_contiguous()?)
    }
}

/// The place of a value in [`Machine::values`].
type Id = usize;

#[derive(Clone, Debug)]
enum Value {
    Int(i64),
    /// Of more than 8 bytes.
    Long(Vec<u8>),
    Text(String),
    /// A tuple or a list.
    Items(Vec<Id>),
    Dictionary(Vec<(Id, Id)>),
    /// A class or a function: `module name`.
    Name(String),
    Storage(Storage),
    Tensor(Described),
    /// Anything that no tensor is made of.
    Other,
}

/// Carries out pickles that follow each other. Values refer to each other by place, for a pickle changes a list or
/// dictionary after it has put it into another; and so that nothing nests, however deep they lie.
struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    storages: HashMap<String, Storage>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (values, stack, marks) = Default::default();
        Machine { bytes, values, stack, marks, memo: HashMap::new(), storages: HashMap::new() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).context("it is cut short")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A length or number of so many bytes, the lowest first.
    fn number(&mut self, bytes: usize) -> Result<usize> {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(usize::try_from(u64::from_le_bytes(all))?)
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n').context("it is cut short")?;
        Ok(std::str::from_utf8(&self.take(end + 1)?[..end])?)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn push_text(&mut self, length: usize) -> Result<()> {
        // Python 2's strings need not be UTF-8.
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        ensure!(self.marks.last().is_none_or(|&mark| self.stack.len() > mark), "a value is missing");
        self.stack.pop().context("a value is missing")
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().context("a value is missing")
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("a mark is missing")?;
        ensure!(mark <= self.stack.len(), "a mark is missing");
        Ok(self.stack.split_off(mark))
    }

    /// The next pickle's value.
    fn run(&mut self) -> Result<Id> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?), // A frame's length, which only helps to read ahead.
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'N' | 0x88 | 0x89 => self.push(Value::Other),
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other);
                }
                b'K' => {
                    let number = self.number(1)? as i64;
                    self.push(Value::Int(number));
                }
                b'M' => {
                    let number = self.number(2)? as i64;
                    self.push(Value::Int(number));
                }
                b'J' => {
                    let number = self.number(4)? as u32 as i32;
                    self.push(Value::Int(number.into()));
                }
                0x8a => {
                    let length = self.number(1)?;
                    let digits = self.take(length)?;
                    let sign = if digits.last().is_some_and(|byte| byte >> 7 == 1) { 0xff } else { 0 };
                    let mut all = [sign; 8];
                    self.push(match length {
                        0..=8 => {
                            all[..length].copy_from_slice(digits);
                            Value::Int(i64::from_le_bytes(all))
                        }
                        _ => Value::Long(digits.to_vec()),
                    });
                }
                0x8c | b'U' | b'C' => {
                    let length = self.number(1)?;
                    self.push_text(length)?;
                }
                b'X' | b'T' | b'B' => {
                    let length = self.number(4)?;
                    self.push_text(length)?;
                }
                b'}' => self.push(Value::Dictionary(Vec::new())),
                b']' | b')' => self.push(Value::Items(Vec::new())),
                0x8f => self.push(Value::Other), // A set, which takes what 0x90 puts into it.
                0x90 => drop(self.pop_to_mark()?),
                b't' | b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Items(items));
                }
                0x85..=0x87 => {
                    let mut items = vec![];
                    for _ in 0..=opcode - 0x85 {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push(Value::Items(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(&items)?;
                }
                b'q' | b'r' => {
                    let place = self.number(if opcode == b'q' { 1 } else { 4 })?;
                    let top = self.top()?;
                    self.memo.insert(u32::try_from(place)?, top);
                }
                0x94 => {
                    let top = self.top()?;
                    self.memo.insert(u32::try_from(self.memo.len())?, top);
                }
                b'h' | b'j' => {
                    let place = self.number(if opcode == b'h' { 1 } else { 4 })?;
                    let value = self.memo.get(&u32::try_from(place)?).context("a value is missing")?;
                    self.stack.push(*value);
                }
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.push(Value::Name(name));
                }
                0x93 => {
                    let name = self.pop()?;
                    let module = self.pop()?;
                    let name = format!("{} {}", self.text(module)?, self.text(name)?);
                    self.push(Value::Name(name));
                }
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let function = self.pop()?;
                    let made = self.call(function, arguments)?;
                    self.push(made);
                }
                // An object's attributes: of a dictionary torch keeps versions there, of others nobody asks.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.storages.insert(storage.key.clone(), storage.clone());
                    self.push(Value::Storage(storage));
                }
                other => bail!("it has the opcode {other:#04x}, which torch.save does not write"),
            }
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let to = self.top()?;
        if let Value::Items(list) = &mut self.values[to] {
            list.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let to = self.top()?;
        ensure!(items.len().is_multiple_of(2), "a key has no value");
        if let Value::Dictionary(entries) = &mut self.values[to] {
            entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn text(&self, id: Id) -> Result<String> {
        match &self.values[id] {
            Value::Text(text) => Ok(text.clone()),
            Value::Int(number) => Ok(number.to_string()), // Of the old format, some keys are numbers.
            _ => bail!("expected a text"),
        }
    }

    fn natural(&self, id: Id) -> Result<usize> {
        match self.values[id] {
            Value::Int(number) => usize::try_from(number).context("a size is below 0"),
            _ => bail!("expected a number"),
        }
    }

    fn naturals(&self, id: Id) -> Result<Vec<usize>> {
        match &self.values[id] {
            Value::Items(items) => items.iter().map(|&item| self.natural(item)).collect(),
            _ => bail!("expected a list of numbers"),
        }
    }

    /// What a call of `function` would give, as far as tensors are made of it.
    fn call(&self, function: Id, arguments: Id) -> Result<Value> {
        let (Value::Name(name), Value::Items(arguments)) = (&self.values[function], &self.values[arguments]) else {
            return Ok(Value::Other);
        };
        Ok(match (name.as_str(), arguments.as_slice()) {
            ("collections OrderedDict", []) => Value::Dictionary(Vec::new()),
            (
                "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor",
                &[storage, offset, size, stride, ..],
            ) => {
                let Value::Storage(storage) = &self.values[storage] else { bail!("a tensor has no storage") };
                let (offset, size, stride) = (self.natural(offset)?, self.naturals(size)?, self.naturals(stride)?);
                Value::Tensor(Described { storage: storage.clone(), offset, size, stride })
            }
            ("torch._utils _rebuild_parameter", &[tensor, ..]) => self.values[tensor].clone(),
            _ => Value::Other,
        })
    }

    /// What `('storage', class, key, device, count, ...)` stands for.
    fn storage(&self, id: Id) -> Result<Storage> {
        let Value::Items(items) = &self.values[id] else { bail!("expected the description of a storage") };
        let &[what, class, key, _, numel, ..] = items.as_slice() else { bail!("a storage is damaged") };
        ensure!(self.text(what)? == "storage", "expected a storage");
        let Value::Name(class) = &self.values[class] else { bail!("a storage has no class") };
        let kind = match class.as_str() {
            "torch FloatStorage" => Kind::Float,
            "torch DoubleStorage" => Kind::Double,
            "torch HalfStorage" => Kind::Half,
            "torch BFloat16Storage" => Kind::BFloat16,
            "torch LongStorage" => Kind::Int64,
            "torch IntStorage" => Kind::Int,
            "torch ShortStorage" => Kind::Int16,
            "torch CharStorage" => Kind::Int8,
            "torch ByteStorage" => Kind::Uint8,
            "torch BoolStorage" => Kind::Bool,
            other => bail!("tensors of `{}` cannot be read", other.escape_debug()),
        };
        Ok(Storage { kind, key: self.text(key)?, numel: self.natural(numel)? })
    }

    /// All tensors in a dictionary and in those within it, by their names.
    fn found(&self, root: Id) -> Result<Vec<(String, Described)>> {
        ensure!(matches!(self.values[root], Value::Dictionary(_)), "expected a dictionary of tensors");
        let mut found = Vec::new();
        let mut open = vec![(String::new(), root, 0)];
        let mut entries_seen = 0;
        while let Some((name, id, depth)) = open.pop() {
            match &self.values[id] {
                Value::Tensor(tensor) => found.push((name, tensor.clone())),
                Value::Dictionary(entries) if depth < DEEPEST => {
                    entries_seen += entries.len();
                    ensure!(entries_seen <= MOST_ENTRIES, "it has more than {MOST_ENTRIES} entries");
                    for &(key, value) in entries {
                        if let Value::Text(key) = &self.values[key] {
                            let name = if depth == 0 { key.clone() } else { format!("{name}.{key}") };
                            open.push((name, value, depth + 1));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}
