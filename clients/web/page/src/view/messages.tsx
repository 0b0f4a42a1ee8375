/**
 * The messages of a conversation, and the place where the reader is.
 *
 * Only a span of what is loaded is drawn, and it moves with the reader. Whatever is
 * drawn or removed above or below, the first message in view stays where it is; a reader
 * at the end stays at the end. So nothing depends on the browser's own anchoring, which
 * not every browser has.
 */
import { Component, createRef, type JSX } from "preact";
import type { Controller } from "../controller.ts";
import type { Chat, Outgoing, State } from "../model/types.ts";
import { rowsOf, unreadMark } from "../model/rows.ts";
import { extendDown, extendUp, indexAt, spanAround, tailSpan, type Span } from "../model/timeline.ts";
import { Icon } from "./icons.tsx";
import { RowView, type RowActions } from "./row.tsx";
import { Anchor } from "./anchor.ts";

/** Messages drawn at most, drawn at first, and added at once. */
const MOST = 160;
const FIRST = 60;
const STEP = 40;
/** How near to an edge, in pixels, more is drawn or read. */
const NEAR_PX = 800;

interface Props {
  state: State;
  chat: Chat;
  controller: Controller;
  onEdit: (item: Outgoing) => void;
}

interface Local {
  /** Null until there is something to place. */
  span: Span | null;
  stick: boolean;
  unreadAbove: boolean;
}

export class Messages extends Component<Props, Local> {
  override state: Local = { span: null, stick: true, unreadAbove: false };
  private readonly scroller = createRef<HTMLDivElement>();
  private readonly anchor = new Anchor(() => this.scroller.current);
  private sawUnread = false;
  private goTo: "unread" | "end" | null = null;
  private frame = 0;
  private resize: ResizeObserver | null = null;

  static override getDerivedStateFromProps({ chat, state: { me } }: Props, local: Local): Partial<Local> | null {
    if (!chat.opened) return local.span === null ? null : { span: null };
    if (local.span !== null) return null;
    const unread = unreadMark(chat, me);
    if (unread === null) return { span: tailSpan(chat.messages, FIRST), stick: true };
    return { span: spanAround(chat.messages, unread, FIRST / 2), stick: false };
  }

  override componentDidMount(): void {
    const { current } = this.scroller;
    if (current !== null) {
      this.resize = new ResizeObserver(() => this.anchor.restore());
      this.resize.observe(current);
    }
    window.addEventListener("focus", this.schedule);
    window.addEventListener("blur", this.away);
    document.addEventListener("visibilitychange", this.schedule);
    if (this.state.span !== null) this.settle(true);
  }

  override componentWillUnmount(): void {
    this.resize?.disconnect();
    cancelAnimationFrame(this.frame);
    window.removeEventListener("focus", this.schedule);
    window.removeEventListener("blur", this.away);
    document.removeEventListener("visibilitychange", this.schedule);
  }

  override getSnapshotBeforeUpdate(): null {
    if (this.goTo === null) this.anchor.remember();
    return null;
  }

  override componentDidUpdate(_: Props, before: Local): void {
    this.settle(before.span === null && this.state.span !== null);
  }

  /** Goes where the reader should be after something was drawn. */
  private settle(first: boolean): void {
    const to = first ? (this.state.stick ? "end" : "unread") : this.goTo;
    this.goTo = null;
    if (to === "end") this.anchor.end();
    else if (to === "unread") this.anchor.show("[data-unread]");
    else this.anchor.restore();
    this.schedule();
  }

  private readonly onScroll = (): void => {
    this.anchor.remember();
    this.schedule();
  };

  private readonly schedule = (): void => {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.look());
  };

  /** What follows from where the reader is. */
  private look(): void {
    const { current } = this.scroller;
    const { span } = this.state;
    const { chat, controller } = this.props;
    if (current === null || span === null) return;
    const stick = this.anchor.atEnd && span.to === null;
    const above = this.unreadAbove(current, span);
    if (stick !== this.state.stick || above !== this.state.unreadAbove) this.setState({ stick, unreadAbove: above });
    this.markSeen(current, stick);
    const next = this.nextSpan(current, span, stick);
    if (next !== span) this.setState({ span: next });
    else if (chat.loading === "idle") {
      const first = chat.messages[0];
      if (current.scrollTop < NEAR_PX && first !== undefined && first.seq > 1n && first.seq >= span.from) void controller.readOlder(chat.peer);
      else this.readGapInView(current);
    }
  }

  private nextSpan(scroller: HTMLElement, span: Span, stick: boolean): Span {
    const { messages } = this.props.chat;
    const end = span.to === null ? messages.length : indexAt(messages, span.to + 1n);
    if (end - indexAt(messages, span.from) > MOST) {
      if (stick) return tailSpan(messages, FIRST);
      // What was missing within the span has come.
      if (this.anchor.seq !== undefined) return spanAround(messages, BigInt(this.anchor.seq), MOST / 2 - 1);
    }
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    if (scroller.scrollTop < NEAR_PX && indexAt(messages, span.from) > 0) return extendUp(messages, span, STEP, MOST);
    if (below < NEAR_PX && span.to !== null) return extendDown(messages, span, STEP, MOST);
    return span;
  }

  private readGapInView(scroller: HTMLElement): void {
    const view = scroller.getBoundingClientRect();
    for (const element of scroller.querySelectorAll<HTMLElement>("[data-gap]")) {
      const { top, bottom } = element.getBoundingClientRect();
      if (bottom < view.top - NEAR_PX || top > view.bottom + NEAR_PX) continue;
      const [after, before] = (element.dataset["gap"] ?? "").split(":").map(BigInt);
      if (after === undefined || before === undefined) continue;
      const readerIsBelow = top < view.top + view.height / 2;
      void this.props.controller.readGap(this.props.chat.peer, after, before, readerIsBelow ? "newer" : "older");
      return;
    }
  }

  /** What is in view of a window that is looked at has been read. */
  private markSeen(scroller: HTMLElement, stick: boolean): void {
    const { chat, controller } = this.props;
    const looking = document.visibilityState === "visible" && document.hasFocus();
    const last = chat.messages[chat.messages.length - 1];
    const atHead = stick && last !== undefined && last.seq === chat.head;
    controller.dispatch({ type: "attentive", attentive: looking && atHead });
    if (!looking) return;
    const seq = atHead ? chat.head : this.anchor.lastSeqInView(scroller);
    if (seq !== null) controller.seen(chat.peer, seq);
  }

  /** A hidden page draws no frame, in which it would notice that nobody looks. */
  private readonly away = (): void => this.props.controller.dispatch({ type: "attentive", attentive: false });

  private unreadAbove(scroller: HTMLElement, span: Span): boolean {
    const { chat, state } = this.props;
    if (chat.unreadFrom === null || this.sawUnread) return false;
    const element = scroller.querySelector("[data-unread]");
    if (element !== null) {
      const inView = element.getBoundingClientRect().bottom >= scroller.getBoundingClientRect().top;
      if (inView) this.sawUnread = true;
      return !inView;
    }
    return (unreadMark(chat, state.me) ?? chat.unreadFrom) < span.from;
  }

  /** To the newest message, wherever the reader is. */
  readonly toEnd = async (): Promise<void> => {
    const { chat, controller } = this.props;
    const last = chat.messages[chat.messages.length - 1];
    if (last !== undefined && last.seq < chat.head) await controller.readNewest(chat.peer);
    this.goTo = "end";
    this.setState({ span: tailSpan(this.props.chat.messages, FIRST), stick: true });
  };

  private readonly toUnread = async (): Promise<void> => {
    const { chat, controller } = this.props;
    if (chat.unreadFrom === null) return;
    await controller.readAround(chat.peer, chat.unreadFrom);
    const seq = unreadMark(this.props.chat, this.props.state.me);
    if (seq === null) return;
    this.goTo = "unread";
    this.setState({ span: spanAround(this.props.chat.messages, seq, FIRST / 2), stick: false });
  };

  private readonly onKeyDown = (event: KeyboardEvent): void => {
    if (event.target !== event.currentTarget) return;
    if (event.key === "End") {
      event.preventDefault();
      void this.toEnd();
    }
  };

  private readonly actions: RowActions = {
    retry: (item) => {
      this.props.controller.retry(item);
      this.scroller.current?.focus();
    },
    discard: (item) => {
      this.props.controller.discard(item);
      this.scroller.current?.focus();
    },
    edit: (item) => this.props.onEdit(item),
    readOlder: () => void this.props.controller.readOlder(this.props.chat.peer),
    readGap: (after, before) => void this.props.controller.readGap(this.props.chat.peer, after, before, "older"),
  };

  override render({ chat, state, controller }: Props, { span, stick, unreadAbove }: Local): JSX.Element {
    const now = controller.now();
    const rows = span === null ? [] : rowsOf(chat, state.me, span);
    return (
      <div class="messages">
        <div class="scroller" ref={this.scroller} tabIndex={0} role="region" aria-label="Messages" onScroll={this.onScroll} onKeyDown={this.onKeyDown}>
          {span === null && <p class="row-note">{chat.loading === "failed" ? "Messages could not be loaded." : "Loading messages…"}</p>}
          <ol role="list">
            {rows.map((row) => (
              <RowView key={row.key} row={row} now={now} skewMs={state.skewMs} loading={chat.loading} actions={this.actions} />
            ))}
          </ol>
        </div>
        {unreadAbove && (
          <button type="button" class="pill pill-up" onClick={() => void this.toUnread()}><Icon name="up" />First unread</button>
        )}
        {span !== null && !stick && (
          <button type="button" class="pill pill-down" onClick={() => void this.toEnd()}>
            <Icon name="down" />{chat.unread > 0 ? `${chat.unread} new` : "Newest"}
          </button>
        )}
      </div>
    );
  }
}
