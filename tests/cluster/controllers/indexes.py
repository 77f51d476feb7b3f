"""Sets of completion indexes as a Job's status writes them: `1,3-5,7`."""


def parse(text: str) -> set[int]:
    """The set."""
    found: set[int] = set()
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def text(indexes: set[int]) -> str:
    """The shortest form; two neighbours are written with a comma, as the real one does."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(_part(run) for run in parts)


def _part(run: list[int]) -> str:
    match len(run):
        case 1:
            return str(run[0])
        case 2:
            return f"{run[0]},{run[1]}"
    return f"{run[0]}-{run[-1]}"
