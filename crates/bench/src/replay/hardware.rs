//! What a worker is: a node of eight H100 that serves a model of 70 billion parameters, as roofline figures.
//!
//! Mooncake's traces come from a service whose nodes have eight GPUs, so they are replayed on their like. The figures are
//! derived here from data sheets and from assumptions that are marked as such; none was fitted to a result. A worker is a
//! straight line where a real one has steps; what is compared are ways of routing, and
//! all of them get the same workers.

/// Rates of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hardware {
    /// Blocks of 512 tokens that fit beside the weights in GPU memory.
    pub(crate) gpu_blocks: usize,
    /// Blocks kept in the host's memory, for reuse alone.
    pub(crate) host_blocks: usize,
}

const GPUS: f64 = 8.0;
/// NVIDIA H100 SXM data sheet: dense BF16, FLOP/s.
const FLOPS: f64 = 989e12;
/// Same: memory bandwidth, bytes/s.
const BANDWIDTH: f64 = 3.35e12;
/// Same: memory, bytes.
const MEMORY: f64 = 80e9;
/// Share of FLOPS reached: 38 to 43 % in the training of Llama 3 ("The Llama 3 Herd of Models", table 4).
const COMPUTE_REACHED: f64 = 0.40;
/// Assumed: the share of bandwidth that decoding reaches.
const BANDWIDTH_REACHED: f64 = 0.60;
/// Llama 3.1 70B: parameters, width, layers, key-value heads × their width.
const PARAMETERS: f64 = 70.6e9;
const WIDTH: f64 = 8192.0;
const LAYERS: f64 = 80.0;
const KV_WIDTH: f64 = 8.0 * 128.0;
/// BF16.
const BYTES: f64 = 2.0;
/// vLLM's default `gpu_memory_utilization`.
const MEMORY_USED: f64 = 0.90;
/// Assumed: activations and buffers per GPU, bytes.
const BUFFERS: f64 = 2e9;
/// Key-value pairs in the host: half of a DGX H100's 2 TB, as its data sheet has them.
const HOST_MEMORY: f64 = 1e12;
/// Assumed: four fifths of the 63 GB/s of PCIe 5 × 16, per GPU.
const HOST_BANDWIDTH: f64 = 50e9;
/// Assumed: scheduling, launching and sampling a step, seconds.
const STEP: f64 = 3e-3;

/// Tokens a step may handle: vLLM's default `max_num_batched_tokens` on H100.
pub(crate) const STEP_TOKENS: u64 = 8192;
/// Sequences at once: vLLM's `max_num_seqs` before it was raised to 1024 for this card.
pub(crate) const SEQUENCES: usize = 256;

const TOKEN_SECONDS: f64 = 2.0 * PARAMETERS / (GPUS * FLOPS * COMPUTE_REACHED);
const WEIGHTS_SECONDS: f64 = PARAMETERS * BYTES / (GPUS * BANDWIDTH * BANDWIDTH_REACHED);
const KV_BYTES: f64 = 2.0 * KV_WIDTH * LAYERS * BYTES;
/// Attention of one token to one token before it, while a prompt is read.
const ATTENTION_SECONDS: f64 = 4.0 * WIDTH * LAYERS / (GPUS * FLOPS * COMPUTE_REACHED);
/// The same while an answer is written: bound by reading the key-value pair.
const CONTEXT_SECONDS: f64 = KV_BYTES / (GPUS * BANDWIDTH * BANDWIDTH_REACHED);
const BLOCK_BYTES: f64 = KV_BYTES * super::trace::BLOCK as f64;
/// Bringing a block back from the host.
const FETCH_SECONDS: f64 = BLOCK_BYTES / (GPUS * HOST_BANDWIDTH);

/// One step of a worker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    /// Tokens read of prompts.
    pub(crate) read: u64,
    /// For each of them, how many were before it.
    pub(crate) before: f64,
    /// Sequences that get a token each.
    pub(crate) batch: u64,
    /// Tokens they attend to.
    pub(crate) context: u64,
    /// Blocks brought back from the host.
    pub(crate) fetched: u64,
}

// === impl Hardware ===

impl Hardware {
    /// With GPU memory alone.
    pub(crate) fn gpu_only() -> Self {
        let bytes = GPUS * (MEMORY * MEMORY_USED - BUFFERS) - PARAMETERS * BYTES;
        Self { gpu_blocks: (bytes / BLOCK_BYTES) as usize, host_blocks: 0 }
    }

    /// With the host's memory behind it, as Mooncake's store, LMCache, or vLLM's and SGLang's own offloading do it.
    pub(crate) fn with_host() -> Self {
        Self { host_blocks: (HOST_MEMORY / BLOCK_BYTES) as usize, ..Self::gpu_only() }
    }

    /// How long a step takes. Where there is a host cache all that is reused is taken to come from it: the slower way.
    pub(crate) fn seconds(&self, step: &Step) -> f64 {
        let fetching = if self.host_blocks > 0 { step.fetched as f64 * FETCH_SECONDS } else { 0.0 };
        let idle = (WEIGHTS_SECONDS - Self::computing(step)).max(0.0);
        STEP + idle + Self::occupied(step) + fetching
    }

    /// The part of a step that more work would not share: without launching it, and without waiting for weights that
    /// would have served a larger batch as well.
    pub(crate) fn occupied(step: &Step) -> f64 {
        Self::computing(step) + step.before * ATTENTION_SECONDS + step.context as f64 * CONTEXT_SECONDS
    }

    fn computing(step: &Step) -> f64 {
        (step.read + step.batch) as f64 * TOKEN_SECONDS
    }

    /// What a call costs a worker that is fully loaded and reuses nothing: its prompt in full steps, and its share in
    /// the steps in which its answer is written.
    pub(crate) fn work(input: u64, output: u64) -> f64 {
        let (n, m) = (input as f64, output as f64);
        let reading = n * (TOKEN_SECONDS + STEP / STEP_TOKENS as f64) + n * n / 2.0 * ATTENTION_SECONDS;
        reading + m * (TOKEN_SECONDS + (n + m / 2.0) * CONTEXT_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_of_the_order_that_is_published() {
        let worker = Hardware::gpu_only();
        // Blocks of 160 MiB beside 141 GB of weights: 1.2 to 1.3 million tokens.
        assert!((2_300..2_600).contains(&worker.gpu_blocks), "{}", worker.gpu_blocks);
        assert_eq!(Hardware::with_host().host_blocks, 5_960);
        // A prompt of 8,000 tokens: some 0.4 s. A token alone: some 12 ms.
        let read = worker.seconds(&Step { read: 8_000, before: 32e6, ..Step::default() });
        assert!((0.3..0.5).contains(&read), "{read}");
        let alone = worker.seconds(&Step { batch: 1, context: 1_000, ..Step::default() });
        assert!((0.010..0.014).contains(&alone), "{alone}");
    }
}
