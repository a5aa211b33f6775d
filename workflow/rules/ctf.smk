# Stage ctf: contrast transfer functions, and the micrographs whose CTF can be trusted.
# Needs: micrographs. Leaves: micrograph tables with CTF columns, and what was rejected and why.
# Steps: estimate_ctf_ctffind, estimate_ctf_gctf, estimate_ctf_xmipp -> consensus_ctf/defocus,
#   (estimate_ctf_xmipp, consensus_ctf/defocus) -> consensus_ctf/envelope. Those run that the runs of consensus_ctf name, and
#   the one from which estimate_ctf_xmipp starts, if any (previous_from).


rule estimate_ctf_ctffind:
    input:
        micrographs=ports["micrographs"],
    output:
        micrographs="ctf/estimate_ctf_ctffind/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_ctffind/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"


rule estimate_ctf_gctf:
    input:
        micrographs=ports["micrographs"],
    output:
        micrographs="ctf/estimate_ctf_gctf/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_gctf/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"


rule estimate_ctf_xmipp:
    input:
        micrographs=ports["micrographs"],
        previous=ports.asked("estimate_ctf_xmipp", "micrographs.star"),
    output:
        micrographs="ctf/estimate_ctf_xmipp/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_xmipp/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"


rule consensus_ctf:
    input:
        micrographs=ports.start("consensus_ctf", "micrographs_with_ctf", otherwise="micrographs"),
        branches=ports.joined("consensus_ctf", "micrographs.star"),
        failures=ports.joined("consensus_ctf", "rejected.tsv"),
    output:
        micrographs="ctf/consensus_ctf/{run}/{batch}_micrographs.star",
        rejected="ctf/consensus_ctf/{run}/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"
