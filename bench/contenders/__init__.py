"""A module for each library, or way to use one, that takes part; `bench.roster` has the list.

The module is run with the interpreter of an environment of its own, ``.venv-bench/<environment>``,
which `scripts/setup.sh` makes of the requirements in ``<environment>.txt``; ours, the limit and the
tools of a broker are run with that of the project. It plays the roles that `bench.roles` lists, by
its name on the command line, and says what came of it in JSON. The scheme of the URL that it is
given tells the broker.

The list is not here, for each child imports this file: what it needs would be measured with it.
"""
