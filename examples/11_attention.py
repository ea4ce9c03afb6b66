"""How far is it from the last word to the first?

Count the multiplications on the gradient's way from the state or output at one word to a word n places before, on the way with the
fewest matrices. They are counted in the graph, not in theory: matrices + elementwise factors. An RNN has one of each per step, an LSTM
meets no matrix on its highway but n gates, self-attention reads every word directly, whatever lies between.

The price: attention compares all pairs of words, so what it holds in memory grows with n², and it knows no order but what is added to
the inputs.

Expected output:

    multiplications between tokens
    shortest path, matrices + factors  n = 1   n = 10   n = 50
    ──────────────────────────────────────────────────────────
    RNN, h to h                        1 + 1  10 + 10  50 + 50
    LSTM, c to c                       0 + 1   0 + 10   0 + 50
    GRU, h to h                        0 + 1   0 + 10   0 + 50
    self-attention, read to V          1 + 0    1 + 0    1 + 0
    self-attention, output to input    3 + 0    3 + 0    3 + 0
    Transformer stack, output to another token's input: 5 with 1, 5 with 6, 5 with 24 blocks; gradient at the first of 24:
        1.37 with norms in the branches, 0.0115 after the sums
    agrees: RNN: n; here 50 matrices, 50 factors at n = 50
    agrees: LSTM: n, but of gates; here 0 matrices, 50 factors at n = 50
    agrees: GRU: n, but of gates; here 0 matrices, 50 factors at n = 50
    agrees: self-attention, between positions: 1; here 1 matrices, 0 factors at n = 50
    differs: self-attention, from output to input: 1; here 3 (W_O, A, W_V) at every n
    agrees: a stack of 24 blocks: up to 24 layers; here 1.37 of the gradient at the first, norms in the branches
"""

import textwrap

from tinygrad_rnn import experiments


def main() -> None:
    found = experiments.run(20, lengths=(1, 10, 50), layers=(1, 6, 24))
    for line in str(found).splitlines():
        print(textwrap.fill(line, 120, subsequent_indent="    "))
    for claim in found.claims():
        print(f"{claim.verdict}: {claim.what}: {claim.published}; here {claim.measured}")


if __name__ == "__main__":
    main()
