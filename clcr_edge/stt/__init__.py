"""Builder of the small Vosk model that ships in `assets/vosk-tiny`; see MODEL_CARD.md there for what it hears and how well.

    python -m clcr_edge.stt.build --root ../shared/data --out DIR

Needs espeak-ng (apt), torch (`clcr-edge[train]`), and to listen, vosk (`clcr-edge[audio]`); Flite, Festival and SVOX Pico (apt)
are used where they are installed. The files, from sound to model:

    vocabulary   words, other words, voices            synth, flite, accents, drawn_voices   who speaks
    synthetic    utterances and noise                  augment        room, channel, noise, level
    takes        people's digits, cut and joined       align          where their phonemes are
    mel, units   what the network sees and tells apart corpus, net    targets and training
    graph, fst   how units make words                  kaldi_files    Vosk's directory
    build        all of it                             scoring        what a model hears, and how wrong it is

The runtime imports none of this.
"""
