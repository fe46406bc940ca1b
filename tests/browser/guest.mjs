// A guest: Chromium with a fake camera and microphone on the guest page.

import { chromium } from "playwright-core";
import { program, until } from "./stage.mjs";

const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=30",
  "--autoplay-policy=no-user-gesture-required",
];

/** Starts a browser that the stage closes. */
export async function openBrowser(stage) {
  const browser = await chromium.launch({ executablePath: program("CHROMIUM"), args: CHROMIUM_FLAGS });
  stage.defer(() => browser.close());
  return browser;
}

export class Guest {
  constructor(id, page) {
    this.id = id;
    this.page = page;
    this.errors = [];
  }

  /** Opens the page for a slot, with a context (cookies, storage) of its own. */
  static async open(browser, daemon, id) {
    const context = await browser.newContext();
    const page = await context.newPage();
    const guest = new Guest(id, page);
    page.on("pageerror", (error) => guest.errors.push(error.message));
    await page.goto(`${daemon.url}/guest_join?guest=${id}`);
    await page.waitForFunction(() => ["idle", "preview"].includes(document.documentElement.dataset.state));
    return guest;
  }

  state() {
    return this.page.evaluate(() => document.documentElement.dataset.state);
  }

  connectionState() {
    return this.page.evaluate(() => window.guestRelay.pc?.connectionState);
  }

  /** Presses Join and waits for the page to say "live"; returns the time of the click. */
  async join() {
    await this.page.evaluate(() => {
      document.querySelector("#join").addEventListener(
        "click",
        () => {
          window.joinedAt = Date.now();
        },
        { capture: true, once: true },
      );
    });
    await this.page.click("#join");
    await until(`${this.id} to be live`, 15_000, async () => {
      if ((await this.state()) === "live") return true;
      const shown = await this.page.textContent("#error");
      return shown?.trim() ? Promise.reject(new Error(`the page says: ${shown.trim()}`)) : false;
    });
    return this.page.evaluate(() => window.joinedAt);
  }

  async leave() {
    await this.page.click("#leave");
    await until(`${this.id} to have left`, 5_000, async () => (await this.state()) === "left");
  }

  /** The video counters of getStats; `packetsLost` as our receiver reports it. */
  video() {
    return this.page.evaluate(async () => {
      const reports = [...(await window.guestRelay.pc.getStats()).values()].filter((each) => each.kind === "video");
      const sent = reports.find((each) => each.type === "outbound-rtp");
      const reported = reports.find((each) => each.type === "remote-inbound-rtp");
      return { framesEncoded: sent?.framesEncoded, framesSent: sent?.framesSent, packetsLost: reported?.packetsLost };
    });
  }

  /** Takes the camera off the sender, so that counters on both ends come to rest. */
  pauseVideo() {
    return this.page.evaluate(async () => {
      const sender = window.guestRelay.pc.getSenders().find((each) => each.track?.kind === "video");
      window.pausedVideo = { sender, track: sender.track };
      await sender.replaceTrack(null);
    });
  }

  resumeVideo() {
    return this.page.evaluate(() => window.pausedVideo.sender.replaceTrack(window.pausedVideo.track));
  }

  /** Notes each state that the connection or the page takes from now on. */
  watchStates() {
    return this.page.evaluate(() => {
      const { pc } = window.guestRelay;
      window.seenStates = [`connection ${pc.connectionState}`, `page ${document.documentElement.dataset.state}`];
      pc.addEventListener("connectionstatechange", () => window.seenStates.push(`connection ${pc.connectionState}`));
      new MutationObserver(() => window.seenStates.push(`page ${document.documentElement.dataset.state}`)).observe(
        document.documentElement,
        { attributeFilter: ["data-state"] },
      );
    });
  }

  seenStates() {
    return this.page.evaluate(() => window.seenStates);
  }
}
