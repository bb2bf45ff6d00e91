"""What every metric says, in words for people who make music; the researcher's names are the keys."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """A metric's title, the unit of its values (empty for none), and what a value says."""

    title: str
    unit: str
    says: str


OF_STEM = {
    "chroma_similarity": Words(
        "Notes kept", "", "1: the same notes as the content's; towards 0: others; of drums and noise it says nothing"
    ),
    "onset_f1": Words("Attacks kept", "", "how many attacks are at their place within 50 ms; 1: all of them"),
    "log_mel_distance_content": Words(
        "Distance from the content", "× 20 dB", "how far the spectrum is from the content's, moment by moment"
    ),
    "log_mel_distance_style": Words(
        "Distance from the style", "× 20 dB", "how far the average spectrum is from the style's; small: alike"
    ),
    "log_mel_distance_content_style": Words(
        "Content's distance from the style", "× 20 dB", "where the stem set out; under this, it has moved to the style"
    ),
    "si_sdr_db": Words(
        "Waveform kept", "dB",
        "how much of the waveform is still the content's; 200: all of it, −200: nothing, and no part of a mean",
    ),
    "seam_step_db": Words(
        "Step at the seams", "dB", "the largest step in level where windows of the model meet; small is good"
    ),
    "peak_db": Words("Peak", "dBFS", "the highest sample; 0: full scale"),
    "true_peak_db": Words("True peak", "dBTP", "the highest value, between the samples too; over 0, it may clip"),
    "loudness_lufs": Words("Loudness", "LUFS", "of the whole stem, by ITU-R BS.1770"),
    "loudness_change_lu": Words("Louder than the content", "LU", "0: as loud; under 0: quieter"),
    "instrument_match": Words(
        "Heard as the style's instrument", "",
        "1: a small classifier, which often errs, hears stem and style as one family of instruments; 0: as two",
    ),
    "clap_content_similarity": Words("Like the content, to CLAP", "", "how alike CLAP hears them, −1 to 1"),
    "clap_style_similarity": Words("Like the style, to CLAP", "", "how alike CLAP hears them, −1 to 1"),
    "clap_content_style_similarity": Words(
        "Content like the style, to CLAP", "", "where the stem set out; over this, it has moved to the style"
    ),
}  # fmt: skip
"""A stem's."""

_MEL = "Fréchet distance of mel spectra"
_CLAP = "Fréchet distance of what CLAP hears"

OF_SETS = {
    "stems": Words("Stems", "", "how many were measured"),
    "contents": Words("Contents", "", "how many clips or passages they were made from"),
    "styles": Words("Styles", "", "how many references the stems are compared with"),
    "fad_mel": Words("All stems from all styles", "", f"{_MEL}; small: they sound alike, whatever is played"),
    "fad_mel_content": Words("All stems from all contents", "", _MEL),
    "fad_mel_content_style": Words("All contents from all styles", "", f"{_MEL}; where the stems set out"),
    "fad_clap": Words("All stems from all styles, to CLAP", "", f"{_CLAP}; small: they sound alike"),
    "fad_clap_content": Words("All stems from all contents, to CLAP", "", _CLAP),
    "fad_clap_content_style": Words("All contents from all styles, to CLAP", "", f"{_CLAP}; where the stems set out"),
}
"""Those of a folder of stems."""


def words_of(name: str) -> Words:
    """A metric's words; one that has none is called by its name.

    >>> words_of("loudness_lufs").unit, words_of("new_metric").title
    ('LUFS', 'new_metric')
    """
    return OF_STEM.get(name) or OF_SETS.get(name) or Words(name, "", "")
