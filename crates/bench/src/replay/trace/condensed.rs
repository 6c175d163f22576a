//! The traces' own encoding: a twentieth of the original text.
//!
//! For each call, as LEB128 numbers: milliseconds since the one before, tokens of input, tokens of output, then for each
//! 512 tokens of input how far its block's number is from one more than the number before, zigzag. All of it in gzip.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::{BLOCK, Call};

/// A line of the published trace.
#[derive(Debug, Deserialize)]
struct Line {
    timestamp: u64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u32>,
}

/// Makes the condensed form of a published trace.
pub(crate) fn condense(text: &str) -> Result<Vec<u8>> {
    let (mut bytes, mut before) = (Vec::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let line: Line = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        if line.hash_ids.len() as u64 != line.input_length.div_ceil(BLOCK) || line.timestamp < before {
            bail!("line {} is not as the encoding needs it: blocks of {BLOCK} tokens, times rising", number + 1);
        }
        for value in [line.timestamp - before, line.input_length, line.output_length] {
            put(&mut bytes, value);
        }
        before = line.timestamp;
        let mut expected = 0;
        for id in line.hash_ids {
            let off = i64::from(id) - expected;
            put(&mut bytes, ((off << 1) ^ (off >> 63)) as u64);
            expected = i64::from(id) + 1;
        }
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    Ok(gzip.finish()?)
}

/// Reads a condensed trace; everybody is one tenant.
pub(super) fn read(gzip: &[u8]) -> Result<Vec<Call>> {
    let (mut bytes, mut calls, mut at) = (Vec::new(), Vec::new(), 0);
    GzDecoder::new(gzip).read_to_end(&mut bytes)?;
    let mut rest = bytes.iter();
    while rest.len() > 0 {
        at += get(&mut rest)? * 1000;
        let (input, output) = (get(&mut rest)?, get(&mut rest)?);
        let (mut blocks, mut expected) = (Vec::new(), 0);
        for _ in 0..input.div_ceil(BLOCK) {
            let value = get(&mut rest)?;
            let id = expected + ((value >> 1) as i64 ^ -((value & 1) as i64));
            blocks.push(u32::try_from(id)?);
            expected = id + 1;
        }
        calls.push(Call { at, input, output, tenant: 0, blocks });
    }
    Ok(calls)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn get<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next().context("the trace ends in the middle of a number")?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_condensed_reads_as_it_was() {
        let text = r#"{"timestamp": 7, "input_length": 1200, "output_length": 3, "hash_ids": [0, 1, 99999]}
{"timestamp": 3000, "input_length": 512, "output_length": 500, "hash_ids": [4]}"#;
        let call = |at, input, output, blocks: &[u32]| Call { at, input, output, tenant: 0, blocks: blocks.to_vec() };
        let calls = read(&condense(text).unwrap()).unwrap();
        assert_eq!(calls, [call(7_000, 1200, 3, &[0, 1, 99_999]), call(3_000_000, 512, 500, &[4])]);
    }

    #[test]
    fn a_trace_of_another_make_is_refused() {
        let short = r#"{"timestamp": 0, "input_length": 1200, "output_length": 3, "hash_ids": [0, 1]}"#;
        assert!(condense(short).is_err());
    }
}
