"""The pages that are generated from the code: what stands in them, and where it is taken from.

    configuration  docs/configuration.md, with `environment`
    command_line   docs/command_line.md
    models         docs/models.md: `families`, `gguf_files` and `checkpoints` are its sections
    tables         tables, and the words for values and defaults in them

`docs/make_reference.py` writes them.
"""
