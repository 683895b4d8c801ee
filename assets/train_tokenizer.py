"""Reproduce tokenizer.json: a byte-level BPE of 2048 tokens, trained on kjv.txt.gz.

    python assets/train_tokenizer.py [OUTPUT]

Byte-level: every text round-trips, and no unknown token is needed.
"""

import gzip
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ASSETS = Path(__file__).resolve().parent
VOCABULARY_SIZE = 2048
END_OF_DOCUMENT = "<|endoftext|>"


def train(text: str) -> Tokenizer:
    """A tokenizer of exactly VOCABULARY_SIZE tokens; id 0 is the end of a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer=trainer)
    return tokenizer


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS / "tokenizer.json"
    text = gzip.decompress((ASSETS / "kjv.txt.gz").read_bytes()).decode("utf-8")
    tokenizer = train(text)
    tokenizer.save(str(output))
    print(f"{output}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
