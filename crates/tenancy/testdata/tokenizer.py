"""Makes `tokenizer.json`: a byte-level BPE of 64 merges, learned from the lines below and from nothing else.

    pip install tokenizers==0.23.3 && python tokenizer.py

It splits words as Llama 3 does, cuts off after 8 tokens, fills up to 8, and puts a token before every text: a file that
a model is published with may do all of that, and none of it may be counted. The last lines print what the tests expect.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LINES = [
    "The water went through the sluice, and the sluice went on.",
    "Water that goes through a gate is counted at the gate.",
    "水闸在夜里打开了，水流过水闸。",
] * 8
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
)
made.decoder = decoders.ByteLevel()
special = ["<|begin|>", "<|end|>"]
alphabet = pre_tokenizers.ByteLevel.alphabet()
made.train_from_iterator(
    LINES, trainers.BpeTrainer(vocab_size=256 + len(special) + 64, special_tokens=special, initial_alphabet=alphabet,
                               show_progress=False)
)
made.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
made.enable_truncation(8)
made.enable_padding(length=8, pad_id=1, pad_token="<|end|>")
made.save(str(Path(__file__).with_name("tokenizer.json")), pretty=False)

made.no_truncation()
made.no_padding()
for text in ["The water went through the sluice.", "水闸 水闸", "a  b\n\n c", "<|end|>", "1234567"]:
    print(repr(text), len(made.encode(text, add_special_tokens=False).ids))
