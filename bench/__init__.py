"""`make bench`: ours, the peers and the bare limit, side by side in one run on each broker.

A broker is an entry in `brokers` and one in `wires`, a contender a file in `contenders` and an
entry in `roster`, what is measured a function in `measurements`, and what it shall come to a line
in `targets`. Every figure comes from child processes of its own, which `child` serves and
`processes` starts and ends.

A run is written down as a `record`. Of the newest one are made (`shown`): the page of all figures
(`report`), the table of the README (`front`), and the pictures of the docs (`plots`, `gallery`).
`compare` tells what became of each figure between two of them.

Two commands of their own go into what one process can be full of, and what it does when there is
nothing to do: `scale` measures what 1 to 10 000 topics, services, clients and nodes cost (drawn by
`growth`), `idle` counts how often a node wakes up.
"""
