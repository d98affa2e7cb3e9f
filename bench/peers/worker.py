"""What the workers share: the prompt's ids and a look at /proc."""


def memory(key):
    """Bytes of a line of this process's status, 0 where there is none."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def ids(n, first=0):
    """Tokens first .. first + n of the text that all engines read."""
    return [(7919 * (first + i) + 13) % 150000 for i in range(n)]
