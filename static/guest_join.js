// The guest page: connects the controls with the devices and the publisher.

import { Devices, MediaError, Meter, NONE } from "./devices.js";
import { h264Codecs } from "./offer.js";
import { CALLS, Paths } from "./path.js";
import { Publisher } from "./publisher.js";
import { watchQuality } from "./quality.js";
import { hasText, text, translate } from "./strings.js";

const DEFAULT_GUEST = "guest1";
const DEFAULT_BITRATE_KBPS = 2500;
const CONNECTED = ["joining", "live", "reconnecting"];

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const link = new URLSearchParams(location.search);
const controls = {
  preview: $("preview"), state: $("state"), error: $("error"), guest: $("guest"), camera: $("camera"),
  microphone: $("microphone"), music: $("music"), startPreview: $("start-preview"), join: $("join"), leave: $("leave"),
  muteMicrophone: $("mute-mic"), muteCamera: $("mute-camera"),
};

let maxBitrateKbps = DEFAULT_BITRATE_KBPS;
let publicUrl = null;
let state = "idle";
/** Since the last join. */
let wasLive = false;
/** Clicks are worked on one after the other. */
let queue = Promise.resolve();

const meter = new Meter($("meter"));
const devices = new Devices({
  onEnded: () => {
    showError("trackEnded");
    refreshDevices();
  },
  onPaused: (paused) => ($("mark-paused").hidden = !paused),
});
const paths = new Paths(link.get("mode"));
const publisher = new Publisher({
  paths,
  onState: setState,
  onPath: showPath,
  onError: (error) => (error ? showError(error.key, { reason: error.reason }) : clearError()),
  maxBitrate: () => maxBitrateKbps * 1000,
});

/** What tests and the curious look at. */
window.guestRelay = {
  get pc() {
    return publisher.pc;
  },
  get state() {
    return state;
  },
  get path() {
    return root.dataset.path;
  },
};

/** Says so when the media goes through the SFU. */
function showPath(path) {
  root.dataset.path = path;
  for (const id of ["banner", "path"]) $(id).hidden = path !== CALLS;
}

function setState(next) {
  state = next;
  root.dataset.state = next;
  wasLive = next === "live" || (wasLive && next !== "joining");
  const words = text(next === "reconnecting" && !wasLive ? "state_retrying" : `state_${next}`);
  // A live region speaks whenever it is written to.
  if (controls.state.textContent !== words) controls.state.textContent = words;
  const connected = CONNECTED.includes(next);
  const previewing = Boolean(devices.stream);
  const focused = document.activeElement;
  controls.startPreview.hidden = previewing || connected;
  controls.join.hidden = connected;
  controls.leave.hidden = !connected;
  controls.startPreview.classList.toggle("primary", !previewing);
  controls.join.classList.toggle("primary", previewing);
  controls.guest.disabled = connected;
  controls.muteMicrophone.disabled = !devices.microphone;
  controls.muteCamera.disabled = !devices.camera;
  // The button that was pressed may be gone; its successor takes the focus.
  if (focused?.hidden) (connected ? controls.leave : controls.join).focus();
  keepAwake(connected);
}

function showError(key, values) {
  controls.error.textContent = hasText(key) ? text(key, values) : String(values?.reason ?? key);
}

function clearError() {
  controls.error.textContent = "";
}

/** Runs one click's work when those before are done; words for what goes wrong. */
function work(action) {
  queue = queue.then(action).catch((error) => {
    if (error instanceof MediaError) showError(error.key, error.values);
    else showError("refused", { reason: error.message });
    showPreview();
    setState(state);
  });
}

/** Shows what is open; called after every change of devices. */
function showPreview() {
  const { camera, stream } = devices;
  controls.preview.srcObject = camera ? new MediaStream([camera]) : null;
  controls.preview.classList.toggle("shown", Boolean(camera));
  // As in a mirror, unless the camera looks away from the guest.
  const facing = camera?.getSettings?.().facingMode;
  controls.preview.classList.toggle("mirrored", facing !== "environment");
  if (camera) controls.preview.play().catch(() => {});
  meter.show(stream);
  showMutes();
}

function showMutes() {
  for (const [kind, button] of [["camera", controls.muteCamera], ["microphone", controls.muteMicrophone]]) {
    const muted = Boolean(devices[kind]) && devices.isMuted(kind);
    button.setAttribute("aria-pressed", String(muted));
    $(`mark-${kind}`).hidden = !muted;
  }
}

/** Whether this browser can publish at all; says why not. */
function canPublish() {
  if (!globalThis.RTCPeerConnection) showError("noWebRtc");
  else if (h264Codecs()?.length === 0) showError("noH264");
  else return true;
  return false;
}

async function openDevices() {
  clearError();
  if (!canCapture()) return false;
  await refreshDevices();
  const warning = await devices.open();
  if (warning) showError(warning);
  await refreshDevices();
  showPreview();
  return true;
}

/** Cameras exist only for secure pages (W3C Secure Contexts); says what to do otherwise. */
function canCapture() {
  if (globalThis.isSecureContext && navigator.mediaDevices?.getUserMedia) return true;
  const inApp = /FBAN|FBAV|Instagram|Snapchat|LinkedInApp|MicroMessenger|Line\//.test(navigator.userAgent);
  if (globalThis.isSecureContext) {
    showError(inApp ? "inApp" : "noMediaDevices");
    return false;
  }
  const words = text("insecure", { origin: location.origin });
  if (publicUrl) {
    const anchor = document.createElement("a");
    anchor.href = new URL(location.pathname + location.search, publicUrl);
    anchor.textContent = anchor.href;
    controls.error.replaceChildren(`${words}\n${text("insecureLink")} `, anchor);
  } else {
    controls.error.textContent = `${words}\n${text("insecureAsk")}`;
  }
  return false;
}

async function refreshDevices() {
  if (!navigator.mediaDevices?.enumerateDevices) return;
  const known = await devices.list();
  fillDevices(controls.camera, "camera", known.camera, devices.camera, "cameraNumber", "noCamera");
  fillDevices(controls.microphone, "microphone", known.microphone, devices.microphone, "microphoneNumber", "noMicrophone");
}

function fillDevices(select, kind, list, track, numbered, none) {
  const options = list
    .filter((device) => device.id)
    .map((device, index) => new Option(device.label || text(numbered, { number: index + 1 }), device.id));
  options.push(new Option(text(none), NONE));
  select.replaceChildren(...options);
  select.disabled = options.length < 2 && !devices.stream;
  const open = track?.getSettings?.().deviceId;
  const chosen = devices.choice[kind]?.id;
  select.value = open ?? (chosen === NONE || devices.stream ? NONE : (chosen ?? options[0].value));
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

async function chooseDevice(kind) {
  const select = controls[kind];
  const label = select.selectedOptions[0]?.textContent ?? "";
  clearError();
  await devices.choose(kind, select.value, label);
  if (devices.stream && !devices.stream.getTracks().length) throw new MediaError("nothingToSend");
  await afterDeviceChange();
}

/** Shows the new tracks and sends them. */
async function afterDeviceChange() {
  showPreview();
  setState(state);
  if (devices.stream) await publisher.replace(devices.stream);
  await refreshDevices();
}

async function join({ again = false } = {}) {
  if (CONNECTED.includes(state)) return;
  clearError();
  if (!canCapture() || !canPublish()) return;
  if (!devices.stream && !(await openDevices())) return;
  if (!devices.stream.getTracks().length) throw new MediaError("nothingToSend");
  publisher.join(controls.guest.value, devices.stream, { again });
}

function toggle(kind) {
  devices.mute(kind, !devices.isMuted(kind));
  showMutes();
}

let wakeLock = null;
/** Keeps the screen on while connected; the lock is lost whenever the page is hidden. */
async function keepAwake(wanted) {
  if (!navigator.wakeLock) return;
  if (!wanted) {
    wakeLock?.release();
    wakeLock = null;
  } else if ((!wakeLock || wakeLock.released) && document.visibilityState === "visible") {
    wakeLock = await navigator.wakeLock.request("screen").catch(() => null);
  }
}

/** The slots, from the daemon; the link may already name one. */
async function loadSlots() {
  const asked = link.get("guest");
  // Without an answer the join itself will say what is wrong.
  const page = (await paths.refresh()) ?? {};
  const slots = (page.guests ?? []).filter((guest) => guest.enabled);
  publicUrl = page.public_url ?? publicUrl;
  maxBitrateKbps = page.max_bitrate_kbps ?? maxBitrateKbps;
  const { path } = paths.next();
  showPath(path);
  if (path === CALLS) paths.iceServers();
  const id = asked ?? slots.find((slot) => slot.id === DEFAULT_GUEST)?.id ?? slots[0]?.id ?? DEFAULT_GUEST;
  if (!slots.some((slot) => slot.id === id)) slots.unshift({ id, name: id });
  controls.guest.replaceChildren(...slots.map((slot) => new Option(slot.name, slot.id)));
  controls.guest.value = id;
  // Who came by a link with a slot in it should not end up in somebody else's by accident.
  $("guest-field").hidden = slots.length < 2 || asked !== null;
  showSlot();
}

function showSlot() {
  $("slot").textContent = controls.guest.selectedOptions[0]?.textContent ?? "";
}

function bind() {
  controls.startPreview.addEventListener("click", () => work(async () => {
    if (!devices.stream && (await openDevices())) {
      setState("preview");
      canPublish();
    }
  }));
  controls.join.addEventListener("click", () => work(() => join()));
  controls.leave.addEventListener("click", () => publisher.leave());
  controls.muteMicrophone.addEventListener("click", () => toggle("microphone"));
  controls.muteCamera.addEventListener("click", () => toggle("camera"));
  controls.guest.addEventListener("change", showSlot);
  for (const kind of ["camera", "microphone"]) {
    controls[kind].addEventListener("change", () => work(() => chooseDevice(kind)));
  }
  controls.music.addEventListener("change", () => work(async () => {
    await devices.setMusic(controls.music.checked);
    await afterDeviceChange();
  }));
  navigator.mediaDevices?.addEventListener?.("devicechange", refreshDevices);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    keepAwake(!controls.leave.hidden);
    // Phones take camera and microphone away from a page in the background.
    if (devices.stream?.getTracks().some((track) => track.readyState === "ended")) {
      work(async () => (await openDevices()) && afterDeviceChange());
    }
  });
  let rejoin = false;
  addEventListener("pagehide", () => {
    rejoin = !controls.leave.hidden;
    publisher.leave({ closing: true });
  });
  // Back from the browser's cache: the session is gone, the tracks may be too.
  addEventListener("pageshow", (event) => {
    if (event.persisted && rejoin) work(async () => (await openDevices()) && join({ again: true }));
  });
  watchQuality(() => publisher.pc, (quality) => {
    $("quality").textContent = quality ? text("quality", { ...quality, word: text(quality.wordKey) }) : "";
  });
}

translate(document);
controls.music.checked = Boolean(devices.choice.music);
bind();
setState("idle");
await loadSlots();
if (canCapture()) {
  canPublish();
  await refreshDevices();
}
