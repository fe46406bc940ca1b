// A bad network between Chromium and the daemon, and what Chromium says of its sending through it.

import { freeUdpPort, program } from "./stage.mjs";

/** Forwards the media of `guest` through loadgen's network; `impairments` are options of `loadgen proxy`. */
export async function throughBadNetwork(stage, daemon, guest, impairments) {
  const port = await freeUdpPort();
  const addresses = ["--listen", `127.0.0.1:${port}`, "--to", `127.0.0.1:${daemon.rtcPort}`];
  stage.start(`network-${guest.id}`, program("LOADGEN"), ["proxy", ...addresses, ...impairments]);
  await guest.page.route(`**/whip/${guest.id}`, async (route) => {
    const response = await route.fetch();
    const answer = (await response.text()).replaceAll(` ${daemon.rtcPort} typ host`, ` ${port} typ host`);
    await route.fulfill({ response, body: answer });
  });
}

/** The outbound-rtp statistics of both kinds, each with its codec and what our reports said of it. */
export function sending(guest) {
  return guest.page.evaluate(async () => {
    const reports = [...(await window.guestRelay.pc.getStats()).values()];
    const of = (kind) => {
      const sent = reports.find((each) => each.type === "outbound-rtp" && each.kind === kind);
      const remote = reports.find((each) => each.type === "remote-inbound-rtp" && each.kind === kind);
      const codec = reports.find((each) => each.id === sent.codecId);
      return { ...sent, codec: codec.mimeType, lost: remote?.packetsLost, roundTrip: remote?.roundTripTime };
    };
    const pair = reports.find((each) => each.type === "candidate-pair" && each.nominated);
    return { audio: of("audio"), video: of("video"), estimate: pair?.availableOutgoingBitrate };
  });
}
