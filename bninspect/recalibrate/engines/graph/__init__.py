"""Engine of TensorFlow 1 checkpoints: the graph stored beside them, rewritten and run.

The graph is reduced in four steps: its modes are set to inference and its branches resolved
(`branches`), the inputs of its BN layers are found (`sites`), dropout is taken out (`dropout`), and
BN layers get statistics that can be chosen in each run, while all but the ancestors of what is
needed is left away (`rewriting`). So nothing of training is imported: neither gradients, which a
newer TensorFlow cannot, nor devices, iterators and files.
"""
