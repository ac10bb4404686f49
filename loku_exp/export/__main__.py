"""Export what a finished run unlearned: a plain PEFT adapter for the original target, with a model card.

The adapter goes on the *untouched* target: what FILA took out of its weights is folded into the adapter
(rank 2r), so that no changed base has to be shipped. With ``lora=none`` it is the whole model.

Usage:
    python -m loku_exp.export outputs/RUN --to DIR [--base NAME]
    python -m loku_exp.export outputs/RUN --to DIR --rank 8              a smaller adapter, its error stated
    python -m loku_exp.export outputs/RUN --to DIR --merged              the whole model, for any loader
    python -m loku_exp.export outputs/RUN --to DIR --push OWNER/NAME     and put it on the hub
"""

import sys
from pathlib import Path

from loku_exp.errors import UserError
from loku_exp.runtime.programs import ending, parser_of


def main(arguments: list[str] | None = None) -> None:
    """Export a run; exit code 1 with a message where it cannot be exported."""
    parser = parser_of("loku_exp.export", __doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    parser.add_argument("--base", help="name of the target in card and adapter, e.g. its hub id")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--rank", type=int, help="compress the adapter to this rank")
    shape.add_argument("--merged", action="store_true", help="fold the adapter into the weights")
    parser.add_argument("--push", metavar="OWNER/NAME", help="a new repository of the hub, private")
    parser.add_argument("--public", action="store_true", help="with --push: for everybody to see")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ending():
        from loku_exp.export.exporting import Shape, export
        from loku_exp.export.hub import check_name, push

        if options.public and not options.push:
            raise UserError("--public: nothing is pushed; add --push OWNER/NAME, or leave it out")
        if options.base == "":
            raise UserError("--base: the name is empty; leave it out, or give the target's hub id")
        if options.push:
            check_name(options.push)
        kind = export(options.run, options.to, options.base, Shape(options.rank, options.merged))
        print(f"{kind}: {options.to}")
        if options.push:
            for line in push(options.to, options.push, private=not options.public):
                print(line)


if __name__ == "__main__":
    main()
