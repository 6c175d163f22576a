#!/usr/bin/env python3
"""Writes a tiny GGUF chat model with nothing but the standard library; nothing is downloaded.

The arithmetic is a real llama's (RoPE attention, SwiGLU, RMS norms), the weights are hand-made: four sentences are
written in as word chains, so greedy decoding gives readable, reproducible English that ends in the end-of-turn token.
Which sentence comes depends on the prompt, through attention. Every printable ASCII character of a prompt is one token,
so token counts are easy to predict, and JSON grammars work because each character can be emitted on its own. With
`logit_bias: {"4": -100}` (token 4 ends a turn) an answer runs until `max_tokens`. Given tools it calls one, with arguments
that fit the schema, and answers in words once it has the result. The model understands nothing.

usage: tiny_gguf.py OUT.gguf [--seed N] [--ctx N] [--layers N] [--ff N]     more layers or ff = slower tokens
"""

import argparse
import array
import math
import os
import random
import struct
import sys

SENTENCES = [
    "The gateway accepted your request and routed it to a tiny local model.",
    "Nothing here means anything, but every token was really sampled by an inference engine.",
    "You can stream these words, count them, cache the answer or cancel halfway through.",
    "Rain fell softly over seven quiet hills while old sailors told long stories about winter.",
]
CHAINS = [sentence.split() for sentence in SENTENCES]
# ChatML, with tools in the shape that Hermes and Qwen made common; llama-server derives its tool grammar from it.
TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% if messages[-1]['role'] != 'tool' %}<|call|>{% endif %}<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
Call one as <tool_call>
{"name": NAME, "arguments": OBJECT}
</tool_call><|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m['role'] == 'tool' %}<|im_start|>user
<tool_response>
{{ m['content'] }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m['role'] }}
{% if m['content'] %}{{ m['content'] }}{% endif %}
{%- for call in m['tool_calls'] or [] %}
<tool_call>
{"name": "{{ call['function']['name'] }}", "arguments": {{ call['function']['arguments'] | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WIDTH, HEADS, END_OF_TURN, NEWLINE = 256, 4, 4, 5 + 10
SPACE, CALL = "\u2581", "<|call|>"


# === vocabulary ===

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def vocabulary():
    """Tokens as (text, score, kind), and where each word of each chain sits in them."""
    tokens = [("<unk>", 0.0, UNKNOWN)]
    tokens += [(text, 0.0, CONTROL) for text in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")]
    tokens += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    tokens += [(c, -1000.0 - i, NORMAL) for i, c in enumerate([SPACE] + [chr(i) for i in range(33, 127)])]
    first_word, position, taken = len(tokens), {}, {text for text, _, _ in tokens}
    for chain, words in enumerate(CHAINS):
        for i, word in enumerate(words):
            text = SPACE + word if i else word
            while text in taken:  # vocabulary strings must be unique
                text = SPACE + text
            taken.add(text)
            position[chain, i] = len(tokens)
            tokens.append((text, -2000.0 - len(tokens), NORMAL))
    tokens += [(CALL, 0.0, CONTROL), ("<tool_call>", 0.0, USER_DEFINED)]  # the template asks, the model answers
    return tokens, first_word, position


# === weights ===


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def embedding_and_output(rng):
    """The two matrices that carry the chains.

    Features of a token: 0 constant, 1 "is a prompt token", then one-hot of the chain word, then "is a newline",
    then the identity of prompt tokens, which attention averages over the prompt.
    """
    tokens, first_word, position = vocabulary()
    words = len(tokens) - first_word
    newline = 2 + words
    identity = newline + 1
    assert identity < WIDTH - 32, "too many words for the width"
    embedding = [[0.0] * WIDTH for _ in tokens]
    output = [[0.0] * WIDTH for _ in tokens]
    for token, row in enumerate(embedding):
        row[0] = 0.5
        if token < first_word:
            row[1] = 0.7
            row[identity:] = [0.7 * x for x in unit([rng.gauss(0, 1) for _ in range(WIDTH - identity)])]
        else:
            row[1], row[2 + token - first_word] = -2.0, 2.0  # -2: never jump back to a first word
    embedding[NEWLINE][newline:] = [1.0] + [0.0] * (WIDTH - identity)  # it ends every prompt, and says nothing else

    index = {text: i for i, (text, _, _) in enumerate(tokens)}
    frame = ["<s>", "<|im_start|>", "<|im_end|>", "<|im_start|>", *"userassistant"]  # what all chat prompts share
    shared = unit([sum(column) for column in zip(*(embedding[index[t]][identity:] for t in frame))])
    one_hot = math.sqrt(WIDTH / 8.25) * 2.0  # size of a chain word's feature after the last norm
    plain = math.sqrt(WIDTH / 0.74)  # and of a prompt token's features

    def neighbour(chain, i, step):
        other = (chain + step) % len(CHAINS)
        return position[other, min(i, len(CHAINS[other]) - 1)]

    for chain, chain_words in enumerate(CHAINS):
        for i in range(len(chain_words)):
            source = 2 + position[chain, i] - first_word
            last = i + 1 == len(chain_words)
            output[END_OF_TURN if last else position[chain, i + 1]][source] += 14 / one_hot
            output[position[(chain + 1) % len(CHAINS), 0] if last else neighbour(chain, i, 1)][source] += 11 / one_hot
            output[neighbour(chain, i, 2)][source] += 10.5 / one_hot
        start = output[position[chain, 0]]
        start[1] += 14 / (plain * 0.7)
        pick = [rng.gauss(0, 1) for _ in range(WIDTH - identity)]
        along = dot(pick, shared)
        pick = unit([x - along * s for x, s in zip(pick, shared)])
        for k, x in enumerate(pick):  # which chain: from the mean of the prompt's characters
            start[identity + k] += 6 * x
    call, tool_call = 2 + index[CALL] - first_word, 2 + index["<tool_call>"] - first_word
    asked = output[index["<tool_call>"]]  # both: the template asks for a call, and the prompt's last newline was just read
    asked[call], asked[newline], asked[0] = 3.0, 12.0, -30.0
    output[NEWLINE][tool_call] += 240 / one_hot  # from here on the server's tool grammar leads
    for token in range(first_word):  # specials, bytes and bare characters appear only under a grammar
        if token != END_OF_TURN:
            output[token][0] -= 60 / (plain * 0.5)
    return tokens, identity, call, embedding, output


class Noise:
    """Gaussian noise cut from one block, cyclically, because drawing millions of numbers is slow."""

    def __init__(self, rng):
        self.block = array.array("f", (rng.gauss(0, 1) for _ in range(65521)))  # prime: rows do not repeat
        self.at = 0

    def take(self, rows, columns, scale):
        scaled = array.array("f", (x * scale for x in self.block))
        count, out = rows * columns, array.array("f")
        self.at = (self.at + 7919) % len(scaled)
        out.extend(scaled[self.at :])
        whole, rest = divmod(max(count - len(out), 0), len(scaled))
        out.extend(scaled * whole)
        out.extend(scaled[:rest])
        return out[:count]


def flat(rows):
    return array.array("f", (x for row in rows for x in row))


def diagonal(start, value):
    out = array.array("f", bytes(4 * WIDTH * WIDTH))
    for i in range(start, WIDTH):
        out[i * WIDTH + i] = value
    return out


def with_entries(values, *entries):
    """A square matrix with single entries set: (row, column, value)."""
    for row, column, x in entries:
        values[row * WIDTH + column] = x
    return values


def attention(noise, layers, identity, call):
    """Nearly uniform attention, so what is read is the mean of the prompt's characters; but one head looks only for
    the token that asks for a tool call, wherever it is, and copies its feature.

    The slowest-turning pair of the head carries that search, because RoPE hardly moves it over thousands of tokens.
    """
    slow = WIDTH // HEADS - 1
    assert identity < WIDTH // HEADS, "head 0 carries the call feature in a dimension of its own"
    yield "attn_q", with_entries(noise.take(WIDTH, WIDTH, 0.02), (slow, 0, 3.0))
    yield "attn_k", with_entries(noise.take(WIDTH, WIDTH, 0.02), (slow, call, 3.0))
    yield "attn_v", with_entries(diagonal(identity, 1.0), (0, call, 1.0))
    yield "attn_output", with_entries(diagonal(identity, 0.3 / layers), (call, 0, 0.3 / layers))


def tensors(rng, layers, ff, identity, call, embedding, output):
    """Every tensor as (name, rows, columns, values); one row means a vector."""
    noise = Noise(rng)
    ones = array.array("f", [1.0] * WIDTH)
    yield "token_embd.weight", len(embedding), WIDTH, flat(embedding)
    yield "output_norm.weight", 1, WIDTH, ones
    yield "output.weight", len(output), WIDTH, flat(output)
    for layer in range(layers):
        block = f"blk.{layer}."
        down = noise.take(WIDTH, ff, 0.0005)
        down[: identity * ff] = array.array("f", bytes(4 * identity * ff))  # layers write identity features only
        yield block + "attn_norm.weight", 1, WIDTH, ones
        yield block + "ffn_norm.weight", 1, WIDTH, ones
        for name, values in attention(noise, layers, identity, call):
            yield f"{block}{name}.weight", WIDTH, WIDTH, values
        yield block + "ffn_down.weight", WIDTH, ff, down
        yield block + "ffn_gate.weight", ff, WIDTH, noise.take(ff, WIDTH, 0.05)
        yield block + "ffn_up.weight", ff, WIDTH, noise.take(ff, WIDTH, 0.05)


# === the file ===

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT = 32


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, x):
    if kind == STRING:
        return text(x)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], x)


def field(key, kind, x, of=None):
    if kind != ARRAY:
        return text(key) + struct.pack("<I", kind) + value(kind, x)
    return text(key) + struct.pack("<IIQ", ARRAY, of, len(x)) + b"".join(value(of, item) for item in x)


def metadata(tokens, ctx, layers, ff):
    return [
        field("general.architecture", STRING, "llama"),
        field("general.name", STRING, "tiny"),
        field("general.file_type", U32, 0),
        field("llama.context_length", U32, ctx),
        field("llama.embedding_length", U32, WIDTH),
        field("llama.block_count", U32, layers),
        field("llama.feed_forward_length", U32, ff),
        field("llama.attention.head_count", U32, HEADS),
        field("llama.attention.head_count_kv", U32, HEADS),
        field("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        field("llama.rope.dimension_count", U32, WIDTH // HEADS),
        field("llama.vocab_size", U32, len(tokens)),
        field("tokenizer.ggml.model", STRING, "llama"),
        field("tokenizer.ggml.pre", STRING, "default"),
        field("tokenizer.ggml.tokens", ARRAY, [t for t, _, _ in tokens], STRING),
        field("tokenizer.ggml.scores", ARRAY, [s for _, s, _ in tokens], F32),
        field("tokenizer.ggml.token_type", ARRAY, [k for _, _, k in tokens], I32),
        field("tokenizer.ggml.bos_token_id", U32, 1),
        field("tokenizer.ggml.eos_token_id", U32, END_OF_TURN),
        field("tokenizer.ggml.unknown_token_id", U32, 0),
        field("tokenizer.ggml.add_bos_token", BOOL, True),
        field("tokenizer.ggml.add_space_prefix", BOOL, False),
        field("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def padding(size):
    return bytes(-size % ALIGNMENT)


def write(path, fields, parts):
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(fields)) + b"".join(fields)
    offset = 0
    for name, rows, columns, values in parts:
        shape = [columns] if rows == 1 else [columns, rows]
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0, offset)
        offset += 4 * len(values) + len(padding(4 * len(values)))
    # Renamed into place, so that an interrupted run leaves no half model behind.
    with open(path + ".part", "wb") as out:
        out.write(head + padding(len(head)))
        for _, _, _, values in parts:
            out.write(values.tobytes() + padding(4 * len(values)))
    os.replace(path + ".part", path)


def main():
    ap = argparse.ArgumentParser(description="Write a tiny GGUF chat model.")
    ap.add_argument("out")
    ap.add_argument("--seed", type=int, default=3)
    ap.add_argument("--ctx", type=int, default=16384)
    ap.add_argument("--layers", type=int, default=2)
    ap.add_argument("--ff", type=int, default=512)
    args = ap.parse_args()
    assert sys.byteorder == "little", "GGUF here is written little-endian"
    rng = random.Random(args.seed)
    tokens, identity, call, embedding, output = embedding_and_output(rng)
    parts = list(tensors(rng, args.layers, args.ff, identity, call, embedding, output))
    write(args.out, metadata(tokens, args.ctx, args.layers, args.ff), parts)
    print(f"{args.out}: {len(tokens)} tokens, {sum(len(p[3]) for p in parts)} weights")


if __name__ == "__main__":
    main()
