"""A subscriber to one introducer, as a program of its own: ``python -m`` this package.

Theory. Introducers speak Foolscap, for which there is one implementation, on Twisted. It runs in
its own process and shares one file with the rest: the cache of announcements.

    book            which announcements count            pure
    subscriber      the Foolscap side                    the only user of Foolscap
    __main__        the program

Rules:

- The program reads the introducer's fURL from standard input, since arguments can be seen by
  everybody on the machine, and ends when standard input does: never later than its parent.
- Nothing goes into the cache that was not signed by the key it is under.
- It reconnects by itself. When it ends, its parent starts it again.
"""
