//! In which words a kind of server tells its load. One row per kind.

use super::Reading;
use super::exposition::{self, Line};

/// A kind of server, by the names of its gauges.
struct Dialect {
    waiting: Gauge,
    running: Gauge,
    /// The first that is there counts.
    kv_used: &'static [Gauge],
    /// Labels that only tell copies of one figure apart: of series that differ in nothing else the largest counts.
    copies: &'static [&'static str],
    /// A label that breaks a figure down that is also there as a whole, where the label is empty or absent.
    parts: Option<&'static str>,
}

/// A gauge, and the label it must have.
#[derive(Debug, Clone, Copy)]
struct Gauge {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
}

/// Wire: the names are those of llm-d's and GAIE's model server protocol; where it says nothing, of the server's source.
const DIALECTS: &[Dialect] = &[
    // vLLM: one series per engine of a data-parallel server. Older ones call the cache's gauge
    // `gpu_cache_usage_perc`.
    Dialect {
        waiting: Gauge::named("vllm:num_requests_waiting"),
        running: Gauge::named("vllm:num_requests_running"),
        kv_used: &[Gauge::named("vllm:kv_cache_usage_perc"), Gauge::named("vllm:gpu_cache_usage_perc")],
        copies: &[],
        parts: None,
    },
    // SGLang: with `--enable-metrics-for-all-schedulers` every rank of a tensor-parallel engine says the same; with
    // priorities on, the figure stands whole under `priority=""` and in parts under each priority.
    Dialect {
        waiting: Gauge::named("sglang:num_queue_reqs"),
        running: Gauge::named("sglang:num_running_reqs"),
        kv_used: &[Gauge::named("sglang:token_usage")],
        copies: &["tp_rank", "pp_rank", "moe_ep_rank"],
        parts: Some("priority"),
    },
    // TensorRT-LLM's own server, `trtllm-serve`.
    Dialect {
        waiting: Gauge::named("trtllm_num_requests_waiting"),
        running: Gauge::named("trtllm_num_requests_running"),
        kv_used: &[Gauge::named("trtllm_kv_cache_utilization")],
        copies: &[],
        parts: None,
    },
    // Triton with the TensorRT-LLM backend.
    Dialect {
        waiting: Gauge::labelled("nv_trt_llm_request_metrics", ("request_type", "waiting")),
        running: Gauge::labelled("nv_trt_llm_request_metrics", ("request_type", "scheduled")),
        kv_used: &[Gauge::labelled("nv_trt_llm_kv_cache_block_metrics", ("kv_cache_block_type", "fraction"))],
        copies: &[],
        parts: None,
    },
    // llama.cpp: newer builds no longer tell how full the cache is.
    Dialect {
        waiting: Gauge::named("llamacpp:requests_deferred"),
        running: Gauge::named("llamacpp:requests_processing"),
        kv_used: &[Gauge::named("llamacpp:kv_cache_usage_ratio")],
        copies: &[],
        parts: None,
    },
];

/// Bound: no server has this many calls; a larger figure is a broken one.
const CALLS_MAX: f64 = 1e6;
/// Bound: a KV cache cannot be used by more than its whole, but for rounding.
const KV_MAX: f64 = 1.001;

/// What the metrics of a server say of its load; `None` when they are of no known kind, or not whole and well.
pub(super) fn read(text: &str) -> Option<Reading> {
    DIALECTS.iter().find_map(|dialect| dialect.read(text))
}

// === impl Dialect ===

impl Dialect {
    fn read(&self, text: &str) -> Option<Reading> {
        let sum = |figures: Vec<f64>| figures.into_iter().sum::<f64>();
        let waiting = sum(self.figures(text, self.waiting, CALLS_MAX)?);
        let running = sum(self.figures(text, self.running, CALLS_MAX)?);
        // Engines of one server are equals: what counts is how full they are on the whole.
        let mean = |figures: Vec<f64>| figures.iter().sum::<f64>() / figures.len() as f64;
        let kv_used = self.kv_used.iter().find_map(|gauge| self.figures(text, *gauge, KV_MAX)).map(mean);
        Some(Reading { waiting, running, kv_used })
    }

    /// What a gauge says, copies and parts left out; `None` when it is not there, or wrong in one place.
    fn figures(&self, text: &str, gauge: Gauge, most: f64) -> Option<Vec<f64>> {
        let mut found: Vec<(Vec<(&str, &str)>, f64)> = Vec::new();
        for text in text.lines().filter(|text| exposition::name(text) == Some(gauge.name)) {
            let Line { labels, value, .. } = exposition::line(text)?;
            let part = labels.iter().any(|(name, value)| Some(*name) == self.parts && !value.is_empty());
            if part || gauge.label.is_some_and(|label| !labels.contains(&label)) {
                continue;
            }
            if !(0.0..=most).contains(&value) {
                return None;
            }
            let labels: Vec<_> = labels.into_iter().filter(|(name, _)| !self.copies.contains(name)).collect();
            match found.iter_mut().find(|(known, _)| *known == labels) {
                Some((_, figure)) => *figure = figure.max(value),
                None => found.push((labels, value)),
            }
        }
        (!found.is_empty()).then(|| found.into_iter().map(|(_, figure)| figure).collect())
    }
}

// === impl Gauge ===

impl Gauge {
    const fn named(name: &'static str) -> Self {
        Self { name, label: None }
    }

    const fn labelled(name: &'static str, label: (&'static str, &'static str)) -> Self {
        Self { name, label: Some(label) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: impl Into<Option<(f64, f64, Option<f64>)>>) {
        let read = read(text).map(|reading| (reading.waiting, reading.running, reading.kv_used));
        assert_eq!(read, expected.into(), "{text}");
    }

    // From a vLLM 0.1x server with two engines; labels in the order of the Python client, `_created` series beside.
    const VLLM: &str = r#"# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 1234.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama-3.1-8b-instruct"} 12.0
vllm:num_requests_running{engine="1",model_name="llama-3.1-8b-instruct"} 9.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="llama-3.1-8b-instruct"} 3.0
vllm:num_requests_waiting{engine="1",model_name="llama-3.1-8b-instruct"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="llama-3.1-8b-instruct",reason="capacity"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="llama-3.1-8b-instruct"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="llama-3.1-8b-instruct"} 0.5
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="llama-3.1-8b-instruct"} 4.2421665e+07
"#;

    const OLD_VLLM: &str = r#"# HELP vllm:num_requests_running Number of requests currently running on GPU.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="Qwen/Qwen2.5-Coder-1.5B-Instruct"} 4.0
# HELP vllm:num_requests_swapped Number of requests swapped to CPU.
# TYPE vllm:num_requests_swapped gauge
vllm:num_requests_swapped{model_name="Qwen/Qwen2.5-Coder-1.5B-Instruct"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="Qwen/Qwen2.5-Coder-1.5B-Instruct"} 1.0
# HELP vllm:gpu_cache_usage_perc GPU KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="Qwen/Qwen2.5-Coder-1.5B-Instruct"} 0.42
"#;

    // With dp 2, tp 2, every rank speaking, and priorities on.
    const SGLANG: &str = r#"# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",priority="",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="glm",priority="",tp_rank="1"} 2.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="",tp_rank="2"} 5.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="",tp_rank="3"} 5.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="1",tp_rank="2"} 4.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="2",tp_rank="2"} 1.0
# HELP sglang:num_queue_reqs The number of requests in the waiting queue.
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{dp_rank="0",engine_type="unified",model_name="glm",priority="",tp_rank="0"} 3.0
sglang:num_queue_reqs{dp_rank="0",engine_type="unified",model_name="glm",priority="",tp_rank="1"} 3.0
sglang:num_queue_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="",tp_rank="2"} 1.0
sglang:num_queue_reqs{dp_rank="1",engine_type="unified",model_name="glm",priority="",tp_rank="3"} 1.0
# HELP sglang:token_usage The token usage.
# TYPE sglang:token_usage gauge
sglang:token_usage{dp_rank="0",engine_type="unified",model_name="glm",tp_rank="0"} 0.25
sglang:token_usage{dp_rank="0",engine_type="unified",model_name="glm",tp_rank="1"} 0.25
sglang:token_usage{dp_rank="1",engine_type="unified",model_name="glm",tp_rank="2"} 0.75
sglang:token_usage{dp_rank="1",engine_type="unified",model_name="glm",tp_rank="3"} 0.75
"#;

    const TRTLLM: &str = r#"# HELP trtllm_num_requests_running Number of active requests
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="nemotron-nano-3"} 3.0
# HELP trtllm_num_requests_waiting Number of queued requests
# TYPE trtllm_num_requests_waiting gauge
trtllm_num_requests_waiting{engine_type="trtllm",model_name="nemotron-nano-3"} 1.0
# HELP trtllm_kv_cache_utilization KV cache utilization
# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="nemotron-nano-3"} 0.62
"#;

    // From the README of Triton's TensorRT-LLM backend.
    const TRITON: &str = r#"# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 0
# HELP nv_trt_llm_kv_cache_block_metrics TRT LLM KV cache block metrics
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;

    const LLAMA_CPP: &str = "# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 284571
# HELP llamacpp:kv_cache_usage_ratio KV-cache usage. 1 means 100 percent usage.
# TYPE llamacpp:kv_cache_usage_ratio gauge
llamacpp:kv_cache_usage_ratio 0.42
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 3
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 46
";

    #[test]
    fn every_kind_of_server_is_understood() {
        check(VLLM, (3.0, 21.0, Some(0.375)));
        check(OLD_VLLM, (1.0, 4.0, Some(0.42)));
        check(SGLANG, (4.0, 7.0, Some(0.5)));
        check(TRTLLM, (1.0, 3.0, Some(0.62)));
        check(TRITON, (1.0, 2.0, Some(0.4875)));
        check(LLAMA_CPP, (46.0, 3.0, Some(0.42)));
        check(&LLAMA_CPP.replace("kv_cache_usage_ratio 0.42", "gone 1"), (46.0, 3.0, None));
    }

    #[test]
    fn what_is_not_whole_and_well_is_no_reading() {
        check("", None);
        check(r#"[{"iter": 1, "numActiveRequests": 3}]"#, None);
        check("vllm:num_requests_running 1\n", None);
        for (good, bad) in [
            ("12.0", "twelve"),
            ("12.0", "NaN"),
            ("12.0", "-1"),
            ("12.0", "+Inf"),
            ("12.0", "2e6"),
            (r#"instruct"} 3.0"#, "instruct} 3.0"),
            ("vllm:num_requests_waiting{", "vllm:num_requests_waitin{"),
        ] {
            assert!(VLLM.contains(good));
            check(&VLLM.replace(good, bad), None);
        }
        // A cache that is fuller than full is left out; the calls still count.
        check(&OLD_VLLM.replace("0.42", "42"), (1.0, 4.0, None));
    }

    /// A text of one of the servers, cut and with some of its bytes changed.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let texts = proptest::sample::select(vec![VLLM, OLD_VLLM, SGLANG, TRTLLM, TRITON, LLAMA_CPP]);
        let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8);
        (texts, damage, any::<proptest::sample::Index>()).prop_map(|(text, damage, end)| {
            let mut bytes = text.as_bytes().to_vec();
            damage.into_iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = byte);
            bytes.truncate(end.index(text.len() + 1));
            bytes
        })
    }

    proptest! {
        #[test]
        fn no_text_gives_figures_that_cannot_be(
            bytes in prop_oneof![damaged(), proptest::collection::vec(any::<u8>(), 0..200)]
        ) {
            if let Some(reading) = read(&String::from_utf8_lossy(&bytes)) {
                // At most a series per line.
                let most = CALLS_MAX * 20.0;
                prop_assert!((0.0..=most).contains(&reading.waiting) && (0.0..=most).contains(&reading.running));
                prop_assert!(reading.kv_used.is_none_or(|used| (0.0..=KV_MAX).contains(&used)));
            }
        }
    }
}
