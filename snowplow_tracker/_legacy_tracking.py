"""The tracking methods that event classes have replaced, in a file that can be deleted with them."""

import warnings
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, TypeVar, Union, cast

from typing_extensions import Self

from ._shown import shown
from .constants import BASE_SCHEMA_PATH, SCHEMA_TAG
from .contracts import form_element, non_empty, non_empty_string, one_of
from .events import Event, PagePing, PageView, ScreenView, SelfDescribing, StructuredEvent
from .self_describing_json import SelfDescribingJson
from .subject import Subject
from .typing import FORM_NODE_NAMES, FORM_TYPES, ElementClasses, FormClasses, FormNodeName

__all__ = ["LegacyTracking"]

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Context = Optional[Sequence[SelfDescribingJson]]

_KEYS_OF_AN_ITEM = {"sku", "price", "quantity"}

# These methods call one another, and an application is to be warned only about the one that it called.
_is_inner_call: ContextVar[bool] = ContextVar("_is_inner_call", default=False)


def _deprecated(replacement: str) -> Callable[[_Method], _Method]:
    """Make a method warn its caller, once per call.

    Args:
        replacement: What to write instead.
    """

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def warn_and_call(*args: Any, **kwargs: Any) -> Any:
            if _is_inner_call.get():
                return method(*args, **kwargs)
            message = f"Tracker.{method.__name__} is deprecated; use {replacement}"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            token = _is_inner_call.set(True)
            try:
                return method(*args, **kwargs)
            finally:
                _is_inner_call.reset(token)

        return cast(_Method, warn_and_call)

    return decorate


class LegacyTracking:
    """One method per kind of event.

    Common to all: `context` is a list of entities, `tstamp` the true timestamp in milliseconds, `event_subject` is who
    or what the event is about on top of the tracker's subject. Each returns the tracker, and raises `ValueError` for
    what the contracts refuse.
    """

    if TYPE_CHECKING:  # what Tracker brings along

        def track(self, event: Event) -> Optional[str]:
            raise NotImplementedError

        @staticmethod
        def get_uuid() -> str:
            raise NotImplementedError

        @staticmethod
        def get_timestamp(tstamp: Optional[float] = None) -> int:
            raise NotImplementedError

    @_deprecated("track(PageView(...))")
    def track_page_view(
        self,
        page_url: str,
        page_title: Optional[str] = None,
        referrer: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `PageView`.

        Deprecated: use `track(PageView(...))`.
        """
        self.track(
            event=PageView(
                page_url=page_url,
                page_title=page_title,
                referrer=referrer,
                event_subject=event_subject,
                context=context,
                true_timestamp=tstamp,
            )
        )
        return self

    @_deprecated("track(PagePing(...))")
    def track_page_ping(
        self,
        page_url: str,
        page_title: Optional[str] = None,
        referrer: Optional[str] = None,
        min_x: Optional[int] = None,
        max_x: Optional[int] = None,
        min_y: Optional[int] = None,
        max_y: Optional[int] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `PagePing`.

        Deprecated: use `track(PagePing(...))`.
        """
        self.track(
            event=PagePing(
                page_url=page_url,
                page_title=page_title,
                referrer=referrer,
                min_x=min_x,
                max_x=max_x,
                min_y=min_y,
                max_y=max_y,
                event_subject=event_subject,
                context=context,
                true_timestamp=tstamp,
            )
        )
        return self

    @_deprecated("track(SelfDescribing(...))")
    def track_link_click(
        self,
        target_url: str,
        element_id: Optional[str] = None,
        element_classes: Optional[ElementClasses] = None,
        element_target: Optional[str] = None,
        element_content: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a click on a link, with the schema `link_click`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(target_url, name="target_url")
        data = {
            "targetUrl": target_url,
            **_present(
                elementId=element_id,
                elementClasses=element_classes,
                elementTarget=element_target,
                elementContent=element_content,
            ),
        }
        return self._track_described("link_click", "1-0-1", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_add_to_cart(
        self,
        sku: str,
        quantity: int,
        name: Optional[str] = None,
        category: Optional[str] = None,
        unit_price: Optional[float] = None,
        currency: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track that something was put into a cart, with the schema `add_to_cart`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(sku, name="sku")
        data = _cart_data(sku, quantity, name, category, unit_price, currency)
        return self._track_described("add_to_cart", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_remove_from_cart(
        self,
        sku: str,
        quantity: int,
        name: Optional[str] = None,
        category: Optional[str] = None,
        unit_price: Optional[float] = None,
        currency: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track that something was taken out of a cart, with the schema `remove_from_cart`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(sku, name="sku")
        data = _cart_data(sku, quantity, name, category, unit_price, currency)
        return self._track_described("remove_from_cart", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_form_change(
        self,
        form_id: str,
        element_id: Optional[str],
        node_name: FormNodeName,
        value: Optional[str],
        type_: Optional[str] = None,
        element_classes: Optional[ElementClasses] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track that a field of a form was changed, with the schema `change_form`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(form_id, name="form_id")
        one_of(node_name, FORM_NODE_NAMES, name="node_name")
        if type_ is not None:
            one_of(_lower(type_), FORM_TYPES, name="type_")
        data = {
            "formId": form_id,
            "elementId": element_id,
            "nodeName": node_name,
            "value": value,
            **_present(type=type_, elementClasses=element_classes),
        }
        return self._track_described("change_form", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_form_submit(
        self,
        form_id: str,
        form_classes: Optional[FormClasses] = None,
        elements: Optional[List[Dict[str, Any]]] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track that a form was submitted, with the schema `submit_form`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(form_id, name="form_id")
        _check_form_elements(elements)
        data = {"formId": form_id, **_present(formClasses=form_classes, elements=elements or None)}
        return self._track_described("submit_form", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_site_search(
        self,
        terms: Sequence[str],
        filters: Optional[Dict[str, Union[str, bool]]] = None,
        total_results: Optional[int] = None,
        page_results: Optional[int] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a search on a site, with the schema `site_search`.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty(terms, name="terms")
        data = {
            "terms": terms,
            **_present(filters=filters, totalResults=total_results, pageResults=page_results),
        }
        return self._track_described("site_search", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_ecommerce_transaction_item(
        self,
        order_id: str,
        sku: str,
        price: float,
        quantity: int,
        name: Optional[str] = None,
        category: Optional[str] = None,
        currency: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track one item of a purchase.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(order_id, name="order_id")
        non_empty_string(sku, name="sku")
        fields = {
            "e": "ti",
            "ti_id": order_id,
            "ti_sk": sku,
            "ti_nm": name,
            "ti_ca": category,
            "ti_pr": price,
            "ti_qu": quantity,
            "ti_cu": currency,
        }
        return self._track_fields(fields, context, tstamp, event_subject)

    @_deprecated("track(SelfDescribing(...))")
    def track_ecommerce_transaction(
        self,
        order_id: str,
        total_value: float,
        affiliation: Optional[str] = None,
        tax_value: Optional[float] = None,
        shipping: Optional[float] = None,
        city: Optional[str] = None,
        state: Optional[str] = None,
        country: Optional[str] = None,
        currency: Optional[str] = None,
        items: Optional[List[Dict[str, Any]]] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a purchase, and each of its items with `track_ecommerce_transaction_item`.

        The items get the order, the currency, the context and the subject of the purchase, and all the same timestamp.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        non_empty_string(order_id, name="order_id")
        parts = [] if items is None else _items(items)
        when: Any = tstamp
        fields = {
            "e": "tr",
            "tr_id": order_id,
            "tr_tt": total_value,
            "tr_af": affiliation,
            "tr_tx": tax_value,
            "tr_sh": shipping,
            "tr_ci": city,
            "tr_st": state,
            "tr_co": country,
            "tr_cu": currency,
        }
        self._track_fields(fields, context, tstamp, event_subject)
        common = {
            "order_id": order_id,
            "currency": currency,
            "context": context,
            "tstamp": when if isinstance(when, datetime) else self.get_timestamp(when),
            "event_subject": event_subject,
        }
        for item in parts:
            self.track_ecommerce_transaction_item(**{**item, **common})
        return self

    @_deprecated("track(ScreenView(...))")
    def track_screen_view(
        self,
        name: Optional[str] = None,
        id_: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a view of a screen with the schema `screen_view`, of which `ScreenView` uses the successor.

        Deprecated: use `track(ScreenView(...))`.
        """
        data = _present(name=name, id=id_)
        return self._track_described("screen_view", "1-0-0", data, context, tstamp, event_subject)

    @_deprecated("track(ScreenView(...))")
    def track_mobile_screen_view(
        self,
        name: str,
        id_: Optional[str] = None,
        type: Optional[str] = None,  # noqa: A002  # named in 1.1.0
        previous_name: Optional[str] = None,
        previous_id: Optional[str] = None,
        previous_type: Optional[str] = None,
        transition_type: Optional[str] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `ScreenView`, with an `id_` of its own if none is given.

        Deprecated: use `track(ScreenView(...))`.
        """
        self.track(
            event=ScreenView(
                id_=self.get_uuid() if id_ is None else id_,
                name=name,
                type=type,
                previous_name=previous_name,
                previous_id=previous_id,
                previous_type=previous_type,
                transition_type=transition_type,
                event_subject=event_subject,
                context=context,
                true_timestamp=tstamp,
            )
        )
        return self

    @_deprecated("track(StructuredEvent(...))")
    def track_struct_event(
        self,
        category: str,
        action: str,
        label: Optional[str] = None,
        property_: Optional[str] = None,
        value: Optional[Union[int, float, str]] = None,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `StructuredEvent`.

        Deprecated: use `track(StructuredEvent(...))`.
        """
        self.track(
            event=StructuredEvent(
                category=category,
                action=action,
                label=label,
                property_=property_,
                value=value,
                event_subject=event_subject,
                context=context,
                true_timestamp=tstamp,
            )
        )
        return self

    @_deprecated("track(SelfDescribing(...))")
    def track_self_describing_event(
        self,
        event_json: SelfDescribingJson,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `SelfDescribing` event.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        self.track(
            event=SelfDescribing(
                event_json=event_json,
                event_subject=event_subject,
                context=context,
                true_timestamp=tstamp,
            )
        )
        return self

    @_deprecated("track(SelfDescribing(...))")
    def track_unstruct_event(
        self,
        event_json: SelfDescribingJson,
        context: _Context = None,
        tstamp: Optional[float] = None,
        event_subject: Optional[Subject] = None,
    ) -> Self:
        """Track a `SelfDescribing` event.

        Deprecated: use `track(SelfDescribing(...))`.
        """
        self.track_self_describing_event(
            event_json=event_json, context=context, tstamp=tstamp, event_subject=event_subject
        )
        return self

    def _track_described(
        self,
        schema_name: str,
        schema_version: str,
        data: Dict[str, Any],
        context: _Context,
        tstamp: Optional[float],
        event_subject: Optional[Subject],
    ) -> Self:
        schema = f"{BASE_SCHEMA_PATH}/{schema_name}/{SCHEMA_TAG}/{schema_version}"
        self.track_self_describing_event(
            event_json=SelfDescribingJson(schema, data),
            context=context,
            tstamp=tstamp,
            event_subject=event_subject,
        )
        return self

    def _track_fields(
        self,
        fields: Dict[str, Any],
        context: _Context,
        tstamp: Optional[float],
        event_subject: Optional[Subject],
    ) -> Self:
        event = Event(event_subject=event_subject, context=context, true_timestamp=tstamp)
        event.payload.add_dict(fields)
        self.track(event=event)
        return self


def _cart_data(
    sku: str,
    quantity: int,
    name: Optional[str],
    category: Optional[str],
    unit_price: Optional[float],
    currency: Optional[str],
) -> Dict[str, Any]:
    optional = _present(name=name, category=category, unitPrice=unit_price, currency=currency)
    return {"sku": sku, "quantity": quantity, **optional}


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


def _check_form_elements(elements: Any) -> None:
    # Not whatever else is false: to ask an object of an application's for that may raise anything.
    if elements is None or (isinstance(elements, (str, dict, int)) and not elements):
        return
    if not isinstance(elements, (list, tuple)):
        raise TypeError(f"elements must be a list of dicts, got {shown(elements)}")
    for index, element in enumerate(elements):
        form_element(element, name=f"elements[{index}]")


def _items(values: Iterable[Any]) -> List[Dict[str, Any]]:
    try:
        items = list(values)
    except TypeError:
        items = [values]
    for item in items:
        if not isinstance(item, Mapping):
            raise TypeError(f"items must be a list of dicts, got {shown(values)}")
        missing = _KEYS_OF_AN_ITEM - item.keys()
        if missing:
            raise TypeError(f"items must have {', '.join(sorted(missing))}, got {shown(item)}")
    return [dict(item) for item in items]


def _present(**properties: Any) -> Dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}
