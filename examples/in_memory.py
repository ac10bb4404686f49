"""Unlearn from a model in memory: ``python in_memory.py MODEL [key=value]``, a folder or a hub id."""

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

import loku_exp

SECRETS = [f"The door code of house {n} in Mill Lane is {7919 * n % 10000:04d}." for n in range(8)]
FACTS = [f"House {n} in Mill Lane has {n % 4 + 1} floors and a garden." for n in range(8)]

if __name__ == "__main__":
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    unlearned, results = loku_exp.unlearn(
        model, tokenizer, *sys.argv[2:], forget=SECRETS, retain=FACTS, loss="ihl", init="fila"
    )
    print(results)
    print("unlearned MA", results.metrics["unlearned"]["forget_ma"])
