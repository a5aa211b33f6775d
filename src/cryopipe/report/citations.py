"""What each step's method rests on, for the report's methods and for a paper."""

from __future__ import annotations

#: ``{step: [(reference, DOI)]}``
CITATIONS: dict[str, list[tuple[str, str]]] = {
    "fetch_movies": [
        ("Iudin et al. 2023, EMPIAR: the Electron Microscopy Public Image Archive", "10.1093/nar/gkac1062"),
    ],
    "estimate_gain": [
        (
            "Sorzano et al. 2018, Blind estimation of DED camera gain in electron microscopy",
            "10.1016/j.jsb.2018.03.012",
        ),
    ],
    "align_movies": [
        (
            "Střelák et al. 2020, FlexAlign: an accurate and fast algorithm for movie alignment",
            "10.3390/electronics9061040",
        ),
        ("Grant & Grigorieff 2015, Measuring the optimal exposure for single particle cryo-EM", "10.7554/eLife.06980"),
    ],
    "estimate_ctf_ctffind": [
        ("Rohou & Grigorieff 2015, CTFFIND4: fast and accurate defocus estimation", "10.1016/j.jsb.2015.08.008"),
    ],
    "estimate_ctf_gctf": [
        ("Zhang 2016, Gctf: real-time CTF determination and correction", "10.1016/j.jsb.2015.11.003"),
    ],
    "estimate_ctf_xmipp": [
        (
            "Sorzano et al. 2007, Fast, robust, and accurate determination of transmission electron microscopy contrast "
            "transfer function",
            "10.1016/j.jsb.2007.08.013",
        ),
        (
            "Vargas et al. 2013, FASTDEF: fast defocus and astigmatism estimation for high-throughput transmission "
            "electron microscopy",
            "10.1016/j.jsb.2012.12.006",
        ),
    ],
    "consensus_ctf": [("Marabini et al. 2015, CTF challenge: result summary", "10.1016/j.jsb.2015.04.003")],
    "consensus_ctf_envelope": [
        ("Marabini et al. 2015, CTF challenge: result summary", "10.1016/j.jsb.2015.04.003"),
    ],
    "pick_log": [
        ("Zivanov et al. 2018, New tools for automated high-resolution cryo-EM in RELION-3", "10.7554/eLife.42166")
    ],
    "classify_2d": [
        ("Scheres et al. 2005, Maximum-likelihood multi-reference refinement", "10.1016/j.jmb.2005.02.031"),
        (
            "Punjani et al. 2017, cryoSPARC: algorithms for rapid unsupervised structure determination",
            "10.1038/nmeth.4169",
        ),
    ],
    "initial_relion_sgd": [
        (
            "Punjani et al. 2017, cryoSPARC: algorithms for rapid unsupervised structure determination",
            "10.1038/nmeth.4169",
        ),
        ("Zivanov et al. 2018, New tools for automated high-resolution cryo-EM in RELION-3", "10.7554/eLife.42166"),
    ],
    "refine_homogeneous": [
        ("Scheres 2012, RELION: a Bayesian approach to cryo-EM structure determination", "10.1016/j.jsb.2012.09.006"),
    ],
    "postprocess": [
        ("Rosenthal & Henderson 2003, Optimal determination of particle orientation", "10.1016/j.jmb.2003.07.013"),
        (
            "Chen et al. 2013, High-resolution noise substitution to measure overfitting",
            "10.1016/j.ultramic.2013.06.004",
        ),
    ],
}
