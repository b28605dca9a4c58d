"""How many instructions a message costs, path by path: seen without a quiet machine.

    make instructions
    make instructions ARGS="--only 'publish; receive' --brokers mqtt,memory"
    make instructions ARGS=--record

A process plays one path under callgrind, which counts what the processor is asked to do outside the
kernel, in all threads. It plays laps of a fixed number of messages, after laps that nobody counts:
what a lap costs is free of start-up and imports, and the same on a busy machine as on a quiet one.
Brokers are real ones. What a count could depend on is fixed: who sends waits for who receives after
each burst, a gate hands a burst over in one piece, and threads change only where one waits.

`paths` lists what is counted, `child` plays it, `peer` is at the other end. `record` compares with
``bench/results/instructions.json``.
"""
