"""What a log without a terminal gets to see."""

from jft.runtime.progress import Bar


def test_a_line_tells_how_far_and_how_long(capsys):
    with Bar("Scoring", 4, done=1) as bar:
        bar.advance("films", 0)  # a batch that finished no item yet
        bar.advance("films", 3)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "Scoring 1/4  films"
    assert last == "Scoring 4/4  films  0 s left"
