//! Conversations dealt out to tenants who call when ServeGen's clients did.
//!
//! ServeGen tells who called how often in each ten minutes of a day, but nothing of what was said; Mooncake tells what
//! was said, but not by whom. So each conversation of the one is given to a client of the other, and a client's calls
//! come at its own rate, in their own order.

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use kernel::random::Random;

use super::Call;

/// Seconds in a row of ServeGen's rates.
const WINDOW_MICROS: usize = 600_000_000;

/// Gives every call a tenant and a time.
pub(super) fn deal(calls: Vec<Call>, rates: &[u8]) -> Result<Vec<Call>> {
    let mut text = String::new();
    GzDecoder::new(rates).read_to_string(&mut text)?;
    let times = arrivals(&text, calls.len())?;
    let mut left: Vec<usize> = times.iter().map(Vec::len).collect();
    let mut hands: Vec<Vec<Call>> = vec![Vec::new(); times.len()];
    for mut talk in conversations(calls) {
        // To whom most are owed; a long conversation may have to go on with somebody else.
        while !talk.is_empty() {
            let owed = left.iter().enumerate().max_by_key(|(_, owed)| **owed).map(|(client, _)| client);
            let (client, owed) = owed.and_then(|at| left.get_mut(at).map(|owed| (at, owed))).context("no client")?;
            let rest = talk.split_off(talk.len().min((*owed).max(1)));
            *owed = owed.saturating_sub(talk.len());
            if let Some(hand) = hands.get_mut(client) {
                hand.append(&mut talk);
            }
            talk = rest;
        }
    }
    let mut dealt = Vec::new();
    for ((mut hand, times), tenant) in hands.into_iter().zip(times).zip(0..) {
        hand.sort_by_key(|call| call.at);
        dealt.extend(hand.into_iter().zip(times).map(|(call, at)| Call { at, tenant, ..call }));
    }
    dealt.sort_by_key(|call| call.at);
    Ok(dealt)
}

/// When each client calls, `count` times in all: a Poisson process with the rates of its column.
fn arrivals(rates: &str, count: usize) -> Result<Vec<Vec<u64>>> {
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for (window, line) in rates.lines().skip(1).enumerate() {
        for (client, rate) in line.split(',').skip(1).enumerate() {
            sum += rate.trim().parse::<f64>().with_context(|| format!("rate of client {client} in window {window}"))?;
            sums.push((sum, window, client));
        }
    }
    let clients = sums.iter().map(|(_, _, client)| client + 1).max().unwrap_or(0);
    let (random, mut times) = (Random::seeded(0x7E_4A_47), vec![Vec::new(); clients]);
    for _ in 0..count {
        let lot = random.unit() * sum;
        let drawn = sums.get(sums.partition_point(|(upto, _, _)| *upto <= lot)).context("no rates")?;
        let at = drawn.1 * WINDOW_MICROS + random.below(WINDOW_MICROS);
        if let Some(times) = times.get_mut(drawn.2) {
            times.push(at as u64);
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    Ok(times)
}

/// Calls that share more than the first block, which many have from a common system prompt, the earliest first.
fn conversations(calls: Vec<Call>) -> Vec<Vec<Call>> {
    let (mut talks, mut known): (Vec<Vec<Call>>, HashMap<u32, usize>) = (Vec::new(), HashMap::new());
    for call in calls {
        let key = call.blocks.get(1).or(call.blocks.first()).copied().unwrap_or(0);
        let at = *known.entry(key).or_insert_with(|| {
            talks.push(Vec::new());
            talks.len() - 1
        });
        if let Some(talk) = talks.get_mut(at) {
            talk.push(call);
        }
    }
    talks
}
