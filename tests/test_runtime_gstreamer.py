"""What `csi://` and `gst:` become, and which channel of an array is opened."""

from __future__ import annotations

import platform

import pytest

from clcr_edge.errors import SourceError, UsageError
from clcr_edge.runtime.camera import Camera
from clcr_edge.runtime.gstreamer import is_pipeline, pipeline_of
from clcr_edge.runtime.mic_channel import MicChannel, parse_channel
from clcr_edge.runtime.portaudio import InputDevice
from clcr_edge.runtime.sources import Source, parse_source, plan_sources


def test_csi_is_the_usual_pipeline_of_a_jetson_camera() -> None:
    assert pipeline_of("csi://1?width=640&height=480&fps=60&flip=2") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=(int)640,height=(int)480,framerate=(fraction)60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,width=(int)640,height=(int)480,format=(string)BGRx ! "
        "videoconvert ! video/x-raw,format=(string)BGR ! appsink drop=true max-buffers=1 sync=false"
    )
    assert "width=(int)1280,height=(int)720,framerate=(fraction)30/1" in pipeline_of("csi://0")


def test_a_pipeline_gets_an_end_only_if_it_has_none() -> None:
    end = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    assert pipeline_of("gst:videotestsrc") == f"videotestsrc ! {end}"
    assert pipeline_of("gst: v4l2src ! jpegdec ! ") == f"v4l2src ! jpegdec ! {end}"
    assert pipeline_of("gst:a ! appsink name=x") == "a ! appsink name=x"
    assert pipeline_of("a ! appsink") == "a ! appsink"
    for source in ("csi://0", "gst:a", "a ! b"):
        assert is_pipeline(source)
        assert parse_source(source) == Source("url", source)
        assert plan_sources(source, None).is_live
    for source in ("rtsp://h/1", "/dev/video0", "a!b"):
        assert not is_pipeline(source)
    assert not is_pipeline(0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("csi://left", "'left' is no sensor"),
        ("csi://", "no sensor"),
        ("csi://0?size=640", "no option 'size'; there are width, height, fps, flip"),
        ("csi://0?width=9999", "width=9999; give a whole number from 16 to 8192"),
        ("csi://0?fps=", "fps="),
        ("csi://0?flip=8", "from 0 to 7"),
        ("gst:", "no pipeline"),
    ],
)
def test_a_wrong_option_is_a_wrong_call_before_anything_opens(source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_sources(source, None)


def test_a_pipeline_is_no_microphone() -> None:
    with pytest.raises(UsageError, match="pipelines are for cameras"):
        plan_sources(None, "gst:audiotestsrc")


def test_csi_where_there_is_no_such_connector_is_refused_at_once() -> None:
    if platform.machine() == "aarch64":
        pytest.skip("this machine may have such a connector")
    with pytest.raises(SourceError, match="camera csi://0: a Jetson's camera connector") as e:
        Camera("csi://0")
    assert e.value.part == "camera"


def test_a_channel_counts_from_0_and_a_sound_server_has_to_be_told_of_how_many() -> None:
    card = InputDevice(0, "ReSpeaker", 6, 16_000, True)
    server = InputDevice(1, "pulse", 32, 44_100, False)
    assert parse_channel("2") == MicChannel(2)
    assert parse_channel("2/4") == MicChannel(2, 4)
    assert parse_channel("5").count_on(card) == 6
    assert parse_channel("2/4").count_on(server) == 4
    with pytest.raises(SourceError, match="no channel 6 of 6, counted from 0"):
        parse_channel("6").count_on(card)
    with pytest.raises(SourceError, match="it has 6"):
        parse_channel("0/8").count_on(card)
    with pytest.raises(SourceError, match="as in --mic-channel 5/6"):
        parse_channel("5").count_on(server)
    for wrong in ("", "-1", "a", "1/", "4/4", "1/x"):
        with pytest.raises(UsageError, match=f"--mic-channel {wrong}:"):
            parse_channel(wrong)


def test_default_is_the_default_microphone() -> None:
    assert plan_sources(None, "default").mic == Source("device", None)
