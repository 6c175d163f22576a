//! A model server with continuous batching: in each step every answer gets a token, and what is left of the step's
//! tokens goes to prompts, first come first served, as vLLM does it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::cache::Cache;
use super::hardware::{Hardware, SEQUENCES, STEP_TOKENS, Step};
use super::trace::{BLOCK, Call};

/// One worker. Calls are told apart by their number in the trace.
#[derive(Debug)]
pub(crate) struct Worker {
    hardware: Hardware,
    waiting: VecDeque<usize>,
    reading: VecDeque<Reading>,
    /// Answers being written, by the step that ends them.
    writing: BinaryHeap<Reverse<(u64, usize)>>,
    /// Tokens that answers being written attend to.
    context: u64,
    /// GPU blocks that calls in work hold, and those of them that are for answers.
    held: usize,
    held_for_answers: usize,
    steps: u64,
    stepping: bool,
    cache: Cache,
    pub(crate) tally: Tally,
}

/// What a worker has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Seconds of work, as [`Hardware::occupied`] counts it.
    pub(crate) work: f64,
    pub(crate) calls: u64,
    pub(crate) blocks: u64,
    pub(crate) blocks_reused: u64,
    pub(crate) input: u64,
    pub(crate) input_reused: u64,
}

/// A prompt of which this much has been read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    call: usize,
    read: u64,
}

/// What a step brought: calls whose first token came, and calls that ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) begun: Vec<usize>,
    pub(crate) ended: Vec<usize>,
}

// === impl Worker ===

impl Worker {
    pub(crate) fn new(hardware: Hardware) -> Self {
        Self {
            hardware,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            writing: BinaryHeap::new(),
            context: 0,
            held: 0,
            held_for_answers: 0,
            steps: 0,
            stepping: false,
            cache: Cache::default(),
            tally: Tally::default(),
        }
    }

    /// Microseconds to the first token of a call that is alone, on a worker that knows so many of its blocks.
    pub(crate) fn alone(&mut self, call: &Call, known: usize) -> u64 {
        let calls = std::slice::from_ref(call);
        let part = Call { blocks: call.blocks.iter().take(known).copied().collect(), ..*call };
        self.cache.enter(&part);
        self.push(0);
        let mut now = 0;
        while let Some(took) = self.begin(calls) {
            now += took;
            if self.end(calls).begun.contains(&0) {
                break;
            }
        }
        now
    }

    pub(crate) fn push(&mut self, call: usize) {
        self.waiting.push_back(call);
    }

    /// Begins a step, unless one is under way or there is nothing to do; says how many microseconds it takes.
    pub(crate) fn begin(&mut self, calls: &[Call]) -> Option<u64> {
        if self.stepping {
            return None;
        }
        let batch = self.writing.len() as u64;
        let mut step = Step { batch, context: self.context, ..Step::default() };
        let mut left = STEP_TOKENS.saturating_sub(batch);
        let mut at = 0;
        while left > 0 {
            if at == self.reading.len() {
                match self.admit(calls) {
                    Some(fetched) => step.fetched += fetched,
                    None => break,
                }
            }
            let Some((reading, call)) =
                self.reading.get_mut(at).and_then(|one| calls.get(one.call).map(|call| (one, call)))
            else {
                break;
            };
            let chunk = left.min(call.input - reading.read);
            step.before += chunk as f64 * (reading.read as f64 + chunk as f64 / 2.0);
            step.read += chunk;
            reading.read += chunk;
            left -= chunk;
            at += 1;
        }
        if step.read + step.batch == 0 {
            return None;
        }
        self.stepping = true;
        let seconds = self.hardware.seconds(&step);
        self.tally.work += Hardware::occupied(&step);
        Some((seconds * 1e6) as u64)
    }

    /// Ends the step.
    pub(crate) fn end(&mut self, calls: &[Call]) -> Outcome {
        let mut outcome = Outcome::default();
        self.stepping = false;
        self.steps += 1;
        self.context += self.writing.len() as u64;
        while let Some(Reverse((last, call))) = self.writing.peek().copied() {
            if last > self.steps {
                break;
            }
            self.writing.pop();
            outcome.ended.push(call);
            if let Some(call) = calls.get(call) {
                self.context -= call.input + call.output;
                self.release(call);
            }
        }
        while let Some(reading) = self.reading.front().copied() {
            let Some(call) = calls.get(reading.call).filter(|call| call.input == reading.read) else { break };
            self.reading.pop_front();
            self.cache.enter(call);
            self.shrink();
            outcome.begun.push(reading.call);
            // The step that read the last of the prompt wrote the first token.
            if call.output > 1 {
                self.context += call.input + 1;
                self.writing.push(Reverse((self.steps + call.output - 1, reading.call)));
            } else {
                outcome.ended.push(reading.call);
                self.release(call);
            }
        }
        outcome
    }

    /// Takes the next call in work, if there is room for it; says how many blocks it can reuse.
    fn admit(&mut self, calls: &[Call]) -> Option<u64> {
        let next = *self.waiting.front()?;
        let call = calls.get(next)?;
        let (input, output) = held(call);
        let full = self.writing.len() + self.reading.len() >= SEQUENCES;
        // Whoever is alone is let in whatever it needs: there is nothing to wait for.
        if full || (self.held > 0 && self.held + input + output > self.hardware.gpu_blocks) {
            return None;
        }
        self.waiting.pop_front();
        self.held += input + output;
        self.held_for_answers += output;
        let known = self.cache.known(call);
        self.shrink();
        // The last token must be read for the first to be written.
        let reused = (known as u64 * BLOCK).min(call.input.saturating_sub(1));
        self.reading.push_back(Reading { call: next, read: reused });
        self.tally.calls += 1;
        self.tally.blocks += call.blocks.len() as u64;
        self.tally.blocks_reused += known as u64;
        self.tally.input += call.input;
        self.tally.input_reused += reused;
        Some(known as u64)
    }

    fn release(&mut self, call: &Call) {
        let (input, output) = held(call);
        self.held -= input + output;
        self.held_for_answers -= output;
        self.cache.enter(call);
        self.shrink();
    }

    fn shrink(&mut self) {
        let all = self.hardware.gpu_blocks + self.hardware.host_blocks;
        self.cache.shrink(all.saturating_sub(self.held_for_answers));
    }
}

/// GPU blocks of a call in work, for its prompt and for its answer. What it shares with others counts for each.
fn held(call: &Call) -> (usize, usize) {
    (call.blocks.len(), call.output.div_ceil(BLOCK) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(blocks: &[u32], output: u64) -> Call {
        Call { at: 0, input: 512 * blocks.len() as u64, output, tenant: 0, blocks: blocks.to_vec() }
    }

    /// Runs until nothing is left to do: microseconds to the first token and to the end of each call.
    fn run(worker: &mut Worker, calls: &[Call]) -> Vec<(u64, u64)> {
        let (mut now, mut times) = (0, vec![(0, 0); calls.len()]);
        while let Some(took) = worker.begin(calls) {
            now += took;
            let outcome = worker.end(calls);
            outcome.begun.iter().for_each(|call| times[*call].0 = now);
            outcome.ended.iter().for_each(|call| times[*call].1 = now);
        }
        times
    }

    #[test]
    fn a_prompt_that_is_known_costs_nearly_nothing() {
        let calls = [call(&(0..40).collect::<Vec<_>>(), 3), call(&(0..40).collect::<Vec<_>>(), 3)];
        let mut worker = Worker::new(Hardware::gpu_only());
        worker.push(0);
        let cold = run(&mut worker, &calls)[0].0;
        worker.push(1);
        let warm = run(&mut worker, &calls)[1].0;
        assert!(warm * 20 < cold, "{warm} of {cold}");
        assert_eq!((worker.tally.blocks, worker.tally.blocks_reused), (80, 40));
    }

    #[test]
    fn prompts_are_read_in_the_order_they_came_and_each_answer_gets_a_token_per_step() {
        let calls: Vec<Call> = (0..3).map(|n| call(&(n * 100..n * 100 + 20).collect::<Vec<_>>(), 10)).collect();
        let mut worker = Worker::new(Hardware::gpu_only());
        (0..3).for_each(|n| worker.push(n));
        let times = run(&mut worker, &calls);
        assert!(times.is_sorted() && times.iter().all(|(begun, ended)| begun < ended));
        assert_eq!((worker.context, worker.held, worker.held_for_answers), (0, 0, 0));
    }

    #[test]
    fn who_does_not_fit_waits() {
        let hardware = Hardware { gpu_blocks: 30, host_blocks: 0 };
        let calls = [call(&(0..20).collect::<Vec<_>>(), 50), call(&(100..120).collect::<Vec<_>>(), 50)];
        let mut worker = Worker::new(hardware);
        (0..2).for_each(|n| worker.push(n));
        let times = run(&mut worker, &calls);
        assert!(times[1].0 > times[0].1);
    }
}
