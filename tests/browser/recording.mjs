// What FFmpeg says about a recording: tracks, packets, timestamps, and whether
// every byte of it decodes.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { program } from "./stage.mjs";

const run = promisify(execFile);
const OUTPUT_LIMIT = 64 << 20;

/** The packets of a file per track: `{ stream, dts: [seconds] }`. */
export async function probe(file) {
  const { stdout } = await run(
    program("FFPROBE"),
    [
      "-v",
      "error",
      "-of",
      "json",
      "-show_entries",
      "stream=index,codec_type,codec_name,width,height,sample_rate,channels:packet=stream_index,dts_time",
      file,
    ],
    { maxBuffer: OUTPUT_LIMIT },
  );
  const { streams = [], packets = [] } = JSON.parse(stdout);
  const tracks = {};
  for (const stream of streams) {
    const dts = packets.filter((each) => each.stream_index === stream.index).map((each) => Number(each.dts_time));
    tracks[stream.codec_type] = { stream, dts };
  }
  return tracks;
}

/**
 * Decodes all of it; returns what FFmpeg complained about and how many pictures came out. Timestamps stay in the
 * file's time base: in that of the guessed frame rate, two pictures of a camera that jitters fall on one tick.
 */
export async function decode(file) {
  const args = ["-nostdin", "-v", "error", "-xerror", "-i", file, "-enc_time_base:v", "demux", "-f", "null", "-"];
  const said = await run(program("FFMPEG"), args).catch((error) => error);
  const counted = await run(program("FFPROBE"), [
    ...["-v", "error", "-select_streams", "v", "-count_frames"],
    ...["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", file],
  ]);
  const complaints = [said.code ? `exit ${said.code}` : "", said.stderr.trim(), counted.stderr.trim()];
  return { complaint: complaints.filter(Boolean).join(": "), frames: Number(counted.stdout) };
}

/** The first place where a list does not increase, as text; undefined if none. */
export function notIncreasing(values) {
  const at = values.findIndex((value, index) => index > 0 && !(value > values[index - 1]));
  return at < 0 ? undefined : `${values[at]} after ${values[at - 1]} (packet ${at})`;
}

/** Packets per second, leaving out the first `skipSeconds` of the track. */
export function rate(dts, skipSeconds = 0) {
  const kept = dts.filter((each) => each >= dts[0] + skipSeconds);
  return (kept.length - 1) / (kept.at(-1) - kept[0]);
}
