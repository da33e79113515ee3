"""The constants of a GPU: what each one is, its unit, its value where nobody has fitted it, and where it may lie.

They are parameters of a card like its other figures. A card gives those that a source states; `hwsim calibrate`
writes those that measurements tell, fitted to them, into devices/calibrations/.

Where neither says anything, shares and energies are those of an ideal device, which its datasheet describes: 1. What is
`Told.FAMILY` is a fact of how units and libraries work: fitted once to the fitted halves of the H200's and the H100's
kernels, which agree within their 90 % intervals. Latencies, `tile_energy`, `lane_energy` and `attention_style` are
assumed: the order of magnitude that a few rows of an H200 show.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.calibration import Constant, Told

CONSTANTS: Mapping[str, Constant] = {
    "single_latency": Constant(
        "s", 2.5e-6, 1e-6, 1e-5, "one launch by the host, between two events", instead="parameters.launch_latency"
    ),
    "graph_launch_latency": Constant("s", 1.3e-6, 3e-7, 5e-6, "one kernel replayed from a recorded graph"),
    "host_launch_overhead": Constant(
        "s", 6e-6, 5e-7, 2e-4, "the host's time to issue one operator of an eager model", Told.MODELS
    ),
    "main_share": Constant("1", 1.0, 0.5, 1.0, "sustained share of the main memory's bandwidth"),
    "cache_share": Constant("1", 1.0, 0.3, 1.5, "sustained share of the cache's bandwidth"),
    "cache_write_share": Constant(
        "1", 0.55, 0.2, 1.0, "bandwidth of the cache for writes over that for reads", Told.FAMILY
    ),
    "issue_share": Constant(
        "1", 1.05, 0.3, 2.0, "instructions that a scheduler issues in a cycle of the card's clock", Told.FAMILY
    ),
    "blocks_per_cycle": Constant("1", 0.9, 0.3, 2.0, "thread blocks that a chip starts in a cycle", Told.FAMILY),
    "link_share": Constant("1", 1.0, 0.5, 1.0, "sustained share of the host link's bandwidth, either way"),
    "link_latency": Constant(
        "s",
        1e-6,
        2e-7,
        2e-5,
        "start of a copy engine and the first answer over the host link",
        instead="links.host.latency",
    ),
    "matmul_share": Constant(
        "1", 1.0, 0.3, 1.0, "sustained share of the matrix units' rate in the main loop of a product"
    ),
    "simt_share": Constant("1", 1.0, 0.3, 1.0, "sustained share of the lanes' rate in the main loop of a product"),
    "store_share": Constant(
        "1", 0.28, 0.02, 2.0, "bandwidth of a unit for storing tiles over that of its port", Told.FAMILY
    ),
    "matmul_overlap": Constant(
        "1", 0.25, 0.001, 1.0, "share of the shorter of work and traffic that adds to the longer", Told.FAMILY
    ),
    "keep": Constant(
        "1", 1.0, 0.05, 1.5, "footprint over capacity from which a replayed kernel misses a cache of two partitions"
    ),
    "keep_ramp": Constant("1", 0.58, 0.05, 2.0, "growth of that ratio over which all comes to be missed", Told.FAMILY),
    "matmul_energy": Constant("1", 1.0, 0.3, 8.0, "energy of matrix work over the card's figure", Told.JOULES),
    "cache_energy": Constant("1", 1.0, 0.1, 2.0, "energy of the cache's bytes over the card's figure", Told.JOULES),
    "tile_energy": Constant(
        "1", 0.1, 0.1, 4.0, "energy of bytes through shared memory to matrix units over the cache's figure", Told.JOULES
    ),
    "main_energy": Constant(
        "1", 1.0, 0.3, 2.0, "energy of the main memory's bytes over the card's figure", Told.JOULES
    ),
    "lane_energy": Constant(
        "1", 0.5, 0.05, 3.0, "energy of a lane's instruction over that of an FMA by the card", Told.JOULES
    ),
    "tile_latency": Constant("s", 7e-7, 1e-8, 1e-5, "a product's first operands, and the end of its last tile"),
    "slice_latency": Constant("s", 1e-6, 1e-8, 1e-5, "what cutting k costs: partial sums written, met and added"),
    "attention_share": Constant("1", 1.0, 0.3, 1.0, "sustained share of the matrix units' rate inside attention"),
    "attention_style": Constant("1", 0.05, 0.001, 1.0, "attention like cuDNN's (0) or FlashAttention's (1)"),
    "attention_latency": Constant("s", 7e-7, 1e-8, 1e-5, "an attention block's set-up and write-back"),
    "conv_share": Constant(
        "1", 0.48, 0.2, 1.0, "share of a unit's port that operands reach which warps gather tap by tap", Told.FAMILY
    ),
    "conv_latency": Constant(
        "s", 1.6e-6, 1e-8, 1e-5, "a gathering convolution's first step and its last store", Told.FAMILY
    ),
    "sequence_share": Constant(
        "1", 1.0, 0.1, 1.0, "share of the cache's bandwidth that programs over chunks keep up with"
    ),
    "sequence_step": Constant("s", 1e-7, 1e-8, 1e-5, "a chunk's products, from its operands to the next state"),
    "peer_share": Constant("1", 1.0, 0.5, 1.0, "share of a peer link's bandwidth that copies over it sustain"),
    "peer_latency": Constant("s", 6.6e-6, 1e-6, 3e-5, "start of a collective, until all ranks have met"),
}
