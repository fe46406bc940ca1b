// All words of the guest page, in English and Norwegian bokmål. Texts in braces are filled in.

// The same in every language: operators look for these words.
const FIXED = {
  remoteAccess: "Remote Access Mode",
  banner: "🌐 Remote Access Mode - Using Cloudflare Calls SFU",
};

const en = {
  ...FIXED,
  title: "Join as a guest",
  stage: "Your picture",
  placeholder: "Your camera preview appears here. Nobody sees you until you join.",
  liveMark: "LIVE",
  markCamera: "Camera off",
  markMicrophone: "Microphone muted",
  markPaused: "Camera paused by the device",
  muteMicrophone: "Mute microphone",
  muteCamera: "Turn camera off",
  startPreview: "Start Preview",
  join: "Join Stream",
  leave: "Leave",
  guest: "Guest slot",
  camera: "Camera",
  microphone: "Microphone",
  noCamera: "No camera",
  noMicrophone: "No microphone",
  cameraNumber: "Camera {number}",
  microphoneNumber: "Microphone {number}",
  music: "Music: no noise suppression or echo cancellation",
  sendsOnly: "This page only sends. You do not hear the programme here.",

  state_idle: "Not connected",
  state_preview: "Preview, not connected",
  state_joining: "Connecting …",
  state_live: "You are live",
  state_reconnecting: "Connection lost, joining again …",
  state_left: "Disconnected",
  quality: "{size} · {fps} fps · {bitrate} Mbit/s · connection {word}",
  qualityGood: "good",
  qualityFair: "fair",
  qualityPoor: "poor",
  qualityBad: "bad",

  insecure: "This page was opened at {origin}. Browsers give a camera only to pages that are opened with https.",
  insecureLink: "Open this link instead:",
  insecureAsk: "Ask the producer for the link that begins with https://.",
  noMediaDevices: "This browser gives pages no camera. Open the link in Chrome, Edge or Safari.",
  inApp: "The link was opened inside another app. Open it in Safari (iPhone, iPad) or Chrome (Android) instead.",
  noH264:
    "This browser cannot send H.264 video, which the production needs. Use Chrome or Edge on a computer, Safari on a " +
    "Mac, iPhone or iPad, or another Android phone with Chrome. (Firefox can after it has fetched its OpenH264 " +
    "plug-in: wait a minute and reload.)",
  noWebRtc: "This browser cannot send live video. Use a current Chrome, Edge or Safari.",

  NotAllowedError:
    "Camera and microphone are blocked. Allow them for this page with the camera or lock symbol beside the address, " +
    "then press the button again. On a Mac also look in System Settings, Privacy & Security.",
  NotFoundError: "No camera and no microphone were found. Plug one in, or switch it on, and press the button again.",
  NotFoundCamera: "No camera was found. You can join with sound only, or plug in a camera and choose it below.",
  NotFoundMicrophone: "No microphone was found. You can join without sound, or plug in a microphone and choose it below.",
  NotReadableError:
    "The camera or microphone is in use by another program, or the system does not hand it out. Close other programs " +
    "that use it (Teams, Zoom, another tab) and press the button again.",
  OverconstrainedError: "This device cannot deliver what was asked of it. Choose another camera or microphone below.",
  AbortError: "The camera or microphone stopped while it was being opened. Unplug it, plug it in and try again.",
  SecurityError: "The browser's settings or this computer's administrator forbid the use of camera and microphone.",
  nothingToSend: "Choose a camera or a microphone first.",
  otherMediaError: "The camera or microphone could not be opened ({name}).",
  trackEnded: "The camera or microphone was disconnected. Choose another one below.",

  refused: "You could not join: {reason}",
  closedSlot: "The producer has closed this guest slot, so you are not connected. Ask the producer before you try again.",
  unknownSlot: "This guest slot does not exist. Check the link, or ask the producer for a new one.",
  taken: "Somebody else has joined in this guest slot.",
  gone: "The producer has ended your connection.",
  busy: "Too many attempts in a short time. The page tries again by itself.",
  unreachable: "The production cannot be reached. The page keeps trying by itself; check your network.",
  serverTrouble: "The production cannot take you in at the moment ({reason}). The page tries again by itself.",
  offline: "This device has no network. The page joins again by itself as soon as there is one.",
  noConnection: "No media connection came about. The page tries again by itself.",
  noConnectionDirectOnly:
    "No media connection came about. At the moment the production can only be reached from its own network: tell the " +
    "people who invited you. The page tries again by itself.",
  noConnectionCalls:
    "No media connection to Cloudflare came about. The network here may not let it through: try another one, such as a " +
    "phone's. The page tries again by itself.",
  callsNotConfigured:
    "The production is not set up for guests over the internet (Cloudflare Calls). Tell the people who invited you.",
  callsMisconfigured:
    "The production's access to Cloudflare does not work: it is not set up correctly. Nothing is wrong on your side; tell " +
    "the people who invited you. The page keeps trying by itself.",
  callsUnreachable:
    "The production cannot reach Cloudflare at the moment. Nothing is wrong on your side. The page tries again by itself.",
};

const nb = {
  ...FIXED,
  title: "Bli med som gjest",
  stage: "Bildet ditt",
  placeholder: "Her ser du kameraet ditt. Ingen andre ser deg før du blir med.",
  liveMark: "DIREKTE",
  markCamera: "Kamera av",
  markMicrophone: "Mikrofon av",
  markPaused: "Kameraet er satt på pause av enheten",
  muteMicrophone: "Slå av mikrofonen",
  muteCamera: "Slå av kameraet",
  startPreview: "Start forhåndsvisning",
  join: "Bli med i sendingen",
  leave: "Forlat",
  guest: "Gjesteplass",
  camera: "Kamera",
  microphone: "Mikrofon",
  noCamera: "Uten kamera",
  noMicrophone: "Uten mikrofon",
  cameraNumber: "Kamera {number}",
  microphoneNumber: "Mikrofon {number}",
  music: "Musikk: uten støyfjerning og ekkodemping",
  sendsOnly: "Denne siden bare sender. Du hører ikke programmet her.",

  state_idle: "Ikke tilkoblet",
  state_preview: "Forhåndsvisning, ikke tilkoblet",
  state_joining: "Kobler til …",
  state_live: "Du er på lufta",
  state_reconnecting: "Forbindelsen er brutt, kobler til igjen …",
  state_left: "Frakoblet",
  quality: "{size} · {fps} bilder/s · {bitrate} Mbit/s · forbindelse: {word}",
  qualityGood: "god",
  qualityFair: "brukbar",
  qualityPoor: "svak",
  qualityBad: "dårlig",

  insecure: "Siden ble åpnet på {origin}. Nettlesere gir bare kamera til sider som er åpnet med https.",
  insecureLink: "Åpne denne lenken i stedet:",
  insecureAsk: "Be produsenten om lenken som begynner med https://.",
  noMediaDevices: "Denne nettleseren gir ikke sider kamera. Åpne lenken i Chrome, Edge eller Safari.",
  inApp: "Lenken ble åpnet inne i en annen app. Åpne den i Safari (iPhone, iPad) eller Chrome (Android).",
  noH264:
    "Denne nettleseren kan ikke sende H.264-video, som produksjonen trenger. Bruk Chrome eller Edge på en datamaskin, " +
    "Safari på Mac, iPhone eller iPad, eller en annen Android-telefon med Chrome. (Firefox kan det når den har hentet " +
    "OpenH264-tillegget: vent et minutt og last siden på nytt.)",
  noWebRtc: "Denne nettleseren kan ikke sende direktevideo. Bruk en ny Chrome, Edge eller Safari.",

  NotAllowedError:
    "Kamera og mikrofon er blokkert. Tillat dem for denne siden med kamera- eller låsesymbolet ved adressen, og trykk " +
    "på knappen igjen. På Mac: se også i Systeminnstillinger, Personvern og sikkerhet.",
  NotFoundError: "Fant verken kamera eller mikrofon. Koble til eller slå på, og trykk på knappen igjen.",
  NotFoundCamera: "Fant ikke noe kamera. Du kan bli med bare med lyd, eller koble til et kamera og velge det nedenfor.",
  NotFoundMicrophone: "Fant ingen mikrofon. Du kan bli med uten lyd, eller koble til en mikrofon og velge den nedenfor.",
  NotReadableError:
    "Kameraet eller mikrofonen er i bruk av et annet program, eller systemet gir det ikke fra seg. Lukk andre programmer " +
    "som bruker det (Teams, Zoom, en annen fane), og trykk på knappen igjen.",
  OverconstrainedError: "Enheten kan ikke levere det som ble bedt om. Velg et annet kamera eller en annen mikrofon nedenfor.",
  AbortError: "Kameraet eller mikrofonen stoppet under åpning. Koble fra, koble til og prøv igjen.",
  SecurityError: "Nettleserens innstillinger eller maskinens administrator forbyr bruk av kamera og mikrofon.",
  nothingToSend: "Velg et kamera eller en mikrofon først.",
  otherMediaError: "Kameraet eller mikrofonen kunne ikke åpnes ({name}).",
  trackEnded: "Kameraet eller mikrofonen ble koblet fra. Velg en annen nedenfor.",

  refused: "Du kunne ikke bli med: {reason}",
  closedSlot: "Produsenten har stengt denne gjesteplassen, så du er ikke tilkoblet. Spør produsenten før du prøver igjen.",
  unknownSlot: "Denne gjesteplassen finnes ikke. Sjekk lenken, eller be produsenten om en ny.",
  taken: "Noen andre har blitt med på denne gjesteplassen.",
  gone: "Produsenten har avsluttet forbindelsen din.",
  busy: "For mange forsøk på kort tid. Siden prøver igjen av seg selv.",
  unreachable: "Får ikke kontakt med produksjonen. Siden prøver igjen av seg selv; sjekk nettet ditt.",
  serverTrouble: "Produksjonen kan ikke ta deg inn akkurat nå ({reason}). Siden prøver igjen av seg selv.",
  offline: "Denne enheten har ikke nett. Siden blir med igjen av seg selv så snart det er nett.",
  noConnection: "Det ble ingen medieforbindelse. Siden prøver igjen av seg selv.",
  noConnectionDirectOnly:
    "Det ble ingen medieforbindelse. Akkurat nå kan produksjonen bare nås fra sitt eget nett: si fra til dem som " +
    "inviterte deg. Siden prøver igjen av seg selv.",
  noConnectionCalls:
    "Det ble ingen medieforbindelse til Cloudflare. Nettet her slipper den kanskje ikke gjennom: prøv et annet, for " +
    "eksempel mobilens. Siden prøver igjen av seg selv.",
  callsNotConfigured:
    "Produksjonen er ikke satt opp for gjester over internett (Cloudflare Calls). Si fra til dem som inviterte deg.",
  callsMisconfigured:
    "Produksjonens tilgang til Cloudflare virker ikke: den er ikke satt opp riktig. Det er ikke noe galt hos deg; si fra " +
    "til dem som inviterte deg. Siden fortsetter å prøve av seg selv.",
  callsUnreachable:
    "Produksjonen får ikke kontakt med Cloudflare akkurat nå. Det er ikke noe galt hos deg. Siden prøver igjen av seg selv.",
};

const norwegian = /^(nb|nn|no)\b/i;
const wanted = new URLSearchParams(location.search).get("lang") ?? navigator.language ?? "en";

/** Language of the page, a BCP 47 tag. */
export const language = norwegian.test(wanted) ? "nb" : "en";
const table = language === "nb" ? nb : en;

/** The text for `key`, with `{name}` replaced by `values.name`. */
export function text(key, values = {}) {
  const template = table[key] ?? en[key] ?? key;
  return template.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Whether there are words for `key`. */
export const hasText = (key) => key in table;

/** Both tables, for tests. */
export const tables = { en, nb };

/** Fills every element with `data-text` or `data-label`. */
export function translate(root) {
  root.documentElement.lang = language;
  root.title = text("title");
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
}
